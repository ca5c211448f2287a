"""Real Prometheus and Alertmanager over real servers: which alerts fire, and who is told."""
