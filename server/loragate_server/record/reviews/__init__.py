"""People's rulings on decisions: their rows, and the book that is read before each answer."""
