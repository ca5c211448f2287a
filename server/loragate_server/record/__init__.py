"""The memory of the gate: decision log and database. No log, no allow."""
