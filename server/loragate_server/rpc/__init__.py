"""The gRPC front: wire messages in, wire messages out. Knows nothing of how an audit works."""
