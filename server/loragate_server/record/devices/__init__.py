"""Audit devices: who gets every line of the decision log beside log and database."""
