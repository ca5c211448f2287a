"""What goes from the record when its time is over, and what is held back."""
