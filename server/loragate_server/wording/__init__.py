"""What people read, in every language that has a file, and how that language writes numbers."""
