"""The embedded stack: every server and service as a supervised process."""
