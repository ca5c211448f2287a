"""Benchmarks: scripts that measure, and `results/` with what they measured, where and when."""
