"""Clusters, their sealed credentials, connection tests and health."""
