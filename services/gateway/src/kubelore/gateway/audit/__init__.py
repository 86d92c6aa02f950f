"""Who did what to which resource, from where, and how it ended: an append-only log in signed chains."""
