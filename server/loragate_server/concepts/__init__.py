"""What is looked for: the library of forbidden concepts, the neutral bank, and their probes."""
