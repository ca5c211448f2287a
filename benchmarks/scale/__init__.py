"""What gradients of real base models take: predicted for all, measured for the smallest."""
