"""Real Kubernetes clusters on one Linux machine."""
