"""The edge: HTTP, SSE, authentication and fan-out."""
