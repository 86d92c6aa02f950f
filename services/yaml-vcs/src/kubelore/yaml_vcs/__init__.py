"""Every change of every object as a version: recorded, compared, brought back."""
