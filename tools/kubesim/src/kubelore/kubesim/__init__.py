"""A small simulated Kubernetes API server for demo, scale and faults."""
