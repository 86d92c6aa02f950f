"""What an operator has without Kubelore: one kubectl per cluster, all at the same time."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from kubelore.lab.kubectl import kubectl_program

LONGEST_S = 120.0
ENOUGH_S = 10.0
"""A question that has taken so long is not asked again."""

_WHOLE_LIST_BYTES = 600_000_000
"""What one `kubectl get -o json` of 5,000 pods needs, rounded up."""


class Fleet:
    """kubectl for the clusters of a folder of kubeconfig files, with a home of its own for its caches."""

    def __init__(self, kubeconfigs: Sequence[Path], home: Path) -> None:
        self.program = str(kubectl_program())
        self._kubeconfigs = kubeconfigs
        self._home = home
        self._asked: dict[tuple[str, ...], float] = {}

    def environment(self, kubeconfig: Path) -> dict[str, str]:
        """Nothing of the user's."""
        return {"KUBECONFIG": str(kubeconfig), "HOME": str(self._home), "PATH": os.environ.get("PATH", "")}

    def everywhere(self, *arguments: str, runs: int, whole_lists: bool = False) -> float:
        """Seconds until the last cluster's kubectl has ended: the median of at most `runs`.

        Discovery is cached before. The same question is asked once in a benchmark
        run. Of whole lists at most as many run at once as the memory allows; where
        that are at least as many as there are cores, it takes no longer for that.
        """
        if arguments not in self._asked:
            at_once = len(self._kubeconfigs)
            if whole_lists:
                room = psutil.virtual_memory().available // 2 // _WHOLE_LIST_BYTES
                at_once = max(2, min(at_once, room))
            if not self._asked:
                self._all("api-resources", at_once=at_once)
            taken = [self._all(*arguments, at_once=at_once)]
            while len(taken) < runs and sum(taken) < ENOUGH_S:
                taken.append(self._all(*arguments, at_once=at_once))
            self._asked[arguments] = statistics.median(taken)
        return self._asked[arguments]

    def one(self, kubeconfig: Path, *arguments: str, runs: int) -> float:
        """Seconds of one kubectl in one cluster: the median of `runs`."""
        self._run(kubeconfig, arguments)
        taken = []
        for _ in range(runs):
            begun = time.perf_counter()
            self._run(kubeconfig, arguments)
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    def _all(self, *arguments: str, at_once: int) -> float:
        begun = time.perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda kubeconfig: self._run(kubeconfig, arguments), self._kubeconfigs))
        return time.perf_counter() - begun

    def _run(self, kubeconfig: Path, arguments: Sequence[str]) -> None:
        done = subprocess.run(
            [self.program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LONGEST_S,
            check=False,
            env=self.environment(kubeconfig),
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
