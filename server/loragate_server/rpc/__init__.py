"""The gRPC front: wire messages in, wire messages out."""
