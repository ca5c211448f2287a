"""The parts of the guard of diffusers pipelines; `loragate.integrations.diffusers` is its door."""
