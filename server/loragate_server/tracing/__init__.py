"""Traces of requests, where they are switched on."""
