"""The configuration: what may be set, and where it is read from."""
