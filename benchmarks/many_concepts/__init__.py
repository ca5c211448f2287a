"""What a library of thousands of concepts costs; see `__main__`."""
