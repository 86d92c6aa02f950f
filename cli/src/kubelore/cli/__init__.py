"""The kubelore command."""
