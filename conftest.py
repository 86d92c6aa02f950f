"""Servers shared by the whole suite, each started when the first test asks for it; how properties are tried;
and what two workers (`make test`) share out between them."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling, LoadScopeScheduling

pytest_plugins = ["kubelore.stack.fixtures"]

# How long an example takes says nothing of the code on a machine that runs servers and other tests beside.
settings.register_profile(
    "beside-others", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("beside-others")


LINES_OF_A_RERUN = 40


class ByFile(LoadFileScheduling):
    """Whole files, so that what a module shares is made once; those on the node, of which a machine has one, as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "the node" if _needs_the_node(self.config.rootpath / file) else file


@functools.cache
def _needs_the_node(file: Path) -> bool:
    return "pytest.mark.node" in file.read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs one behind the other on the node begins first; the scheduler sees files only, so these must say it."""
    unsaid = {
        item.nodeid
        for item in items
        if "lab_node" in getattr(item, "fixturenames", ()) and item.get_closest_marker("node") is None
    }
    if unsaid:
        raise pytest.UsageError(f"these use the lab's node and lack pytest.mark.node: {sorted(unsaid)}")
    items.sort(key=lambda item: not _needs_the_node(item.path))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why tests were run again: what passes at the second try was no less wrong at the first."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"run again: {report.nodeid}", sep="-")
        terminalreporter.write_line("\n".join(report.longreprtext.splitlines()[-LINES_OF_A_RERUN:]))
