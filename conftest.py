"""Servers shared by the whole suite, each started when the first test asks for it; and how properties are tried."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["kubelore.stack.fixtures"]

# How long an example takes says nothing of the code on a machine that runs servers and other tests beside.
settings.register_profile(
    "beside-others", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("beside-others")
