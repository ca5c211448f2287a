"""The HTTP port: metrics, liveness, readiness."""
