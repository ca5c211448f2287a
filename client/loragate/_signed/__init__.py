"""Signed verdicts: the keys that are trusted, the envelope, and what is in it."""
