"""How big a run is: the real one, and one small enough for the test suite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """`runs` short runs of at most `samples` calls and `run_s` seconds each; `starts` starts of the stack."""

    clusters: int
    pods: int
    runs: int
    samples: int
    run_s: float
    starts: int
    rival_runs: int
    watch_s: float
    changes_per_second: int
    updates_per_second: int
    recorded_pods: int
    recorded_per_second: int
    record_s: float
    history_versions: int
    backed_up: int
    restored: int
    stored_log_bytes: int
    whole_lists: bool
    targets: bool

    @property
    def all_pods(self) -> int:
        """Pods in all clusters together."""
        return self.clusters * self.pods

    @property
    def one_app(self) -> int:
        """Pods of one of the ten apps that kubesim makes, in all clusters together."""
        return self.all_pods // 10


FULL = Size(
    clusters=20,
    pods=5_000,
    runs=3,
    samples=150,
    run_s=3.0,
    starts=2,
    rival_runs=3,
    watch_s=10.0,
    changes_per_second=200,
    updates_per_second=1_000,
    recorded_pods=10_000,
    recorded_per_second=6_500,
    record_s=20.0,
    history_versions=10_000,
    backed_up=50_000,
    restored=3_000,
    stored_log_bytes=1_000_000_000,
    whole_lists=True,
    targets=True,
)
QUICK = Size(
    clusters=2,
    pods=200,
    runs=1,
    samples=20,
    run_s=2.0,
    starts=1,
    rival_runs=1,
    watch_s=2.0,
    changes_per_second=40,
    updates_per_second=50,
    recorded_pods=400,
    recorded_per_second=200,
    record_s=3.0,
    history_versions=200,
    backed_up=400,
    restored=100,
    stored_log_bytes=40_000_000,
    whole_lists=False,
    targets=False,
)
