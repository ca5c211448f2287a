"""A catalogue as one job: rate, memory, kills, and what a live server says of the same files."""
