"""What is in the clusters: observers, read model and queries."""
