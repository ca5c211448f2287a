"""What an adapter is: weight deltas of named layers, and their algebra."""
