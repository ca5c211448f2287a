"""What an operator's own base model makes for itself: a bank, adapters to calibrate and to test."""
