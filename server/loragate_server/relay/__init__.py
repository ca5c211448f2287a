"""WebSockets between clients and an image server: every message of a client is checked first."""
