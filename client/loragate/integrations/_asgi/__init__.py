"""The parts of the ASGI middleware that read requests; `loragate.integrations.asgi` is its door."""
