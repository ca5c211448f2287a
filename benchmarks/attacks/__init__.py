"""What a stranger can do to a finished adapter to get it past the audit, and what comes of it."""
