"""What an adapter has learned: base and adapted model compared on the same inputs."""
