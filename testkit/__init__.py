"""What tests and benchmarks share: small models, adapter files, servers and real programs."""
