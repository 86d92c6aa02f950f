"""`python -m kubelore.kubesim`: simulated clusters until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import uvloop

from .app import SimulatedFleet


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kubelore.kubesim", description=__doc__)
    parser.add_argument("--clusters", type=int, help="plain simulated clusters; 1 unless --demo")
    parser.add_argument("--pods", type=int, default=0, help="pods in each cluster")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--port-base", type=int, default=0, help="port of the first cluster; 0: free ports, then kept"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder for kubeconfigs and credentials")
    parser.add_argument("--demo", action="store_true", help="add the clusters demo-shop and demo-data")
    parser.add_argument("--rate", type=float, default=0.0, help="changed pods per second in each cluster")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.clusters is None:
        arguments.clusters = 0 if arguments.demo else 1
    return arguments


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fleet = SimulatedFleet(
        arguments.clusters,
        arguments.pods,
        demo=arguments.demo,
        host=arguments.host,
        port_base=arguments.port_base,
        data=arguments.data,
        seed=arguments.seed,
    )
    async with fleet:
        for number in range(len(fleet)):
            fleet[number].changes_per_second = arguments.rate
        print(f"ready: {len(fleet)} clusters, kubeconfigs in {arguments.data}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(_run(_arguments()))
