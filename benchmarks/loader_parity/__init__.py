"""Random adapter files, read by our loader rules and loaded by the installed libraries."""
