"""Web pages for people: recent verdicts, one audit in full, and reviews of suspected adapters."""
