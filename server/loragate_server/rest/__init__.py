"""The API as JSON over HTTP: other words for the same calls, and nothing decided here."""
