"""Servers shared by the whole suite; each fixture starts when the first test asks for it."""

pytest_plugins = ["kubelore.stack.fixtures"]
