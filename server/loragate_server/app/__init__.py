"""The server: its parts, made and connected in order, and taken down in order."""
