"""Signs verdicts, so that they can be checked without this server."""
