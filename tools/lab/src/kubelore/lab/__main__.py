"""`python -m kubelore.lab build|up|down|kubeconfig`: real clusters for hands, in the foreground."""

import argparse
import asyncio
import os
import sys

from kubelore.lab import build, recipes
from kubelore.lab.errors import LabError, LabUnavailableError
from kubelore.lab.node import prepare_node
from kubelore.lab.session import kubeconfig_files, serve, stop_running

_UNAVAILABLE = 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 3 where a lab can't be on this machine, 1 when something failed."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except LabUnavailableError as error:
        print(f"no lab on this machine: {error}", file=sys.stderr)
        forgiven = getattr(options, "if_possible", False) and os.environ.get("CI", "").lower() != "true"
        return 0 if forgiven else _UNAVAILABLE
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _build(_: argparse.Namespace) -> int:
    build.ensure(recipes.ALL)
    prepare_node()
    print(f"the lab's programs are in {build.cache_folder()}")
    return 0


def _up(_: argparse.Namespace) -> int:
    asyncio.run(serve())
    return 0


def _down(_: argparse.Namespace) -> int:
    stop_running()
    return 0


def _kubeconfig(_: argparse.Namespace) -> int:
    print(*kubeconfig_files(), sep="\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kubelore.lab", description="Real Kubernetes clusters.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    building = commands.add_parser("build", help="build the programs and install what a node needs")
    building.add_argument(
        "--if-possible", action="store_true", help="exit 0 where a lab can't be, unless CI=true"
    )
    building.set_defaults(run=_build)
    up = commands.add_parser("up", help="run a cluster with a node and one without until Ctrl-C")
    up.set_defaults(run=_up)
    commands.add_parser("down", help="end the lab that runs").set_defaults(run=_down)
    paths = commands.add_parser("kubeconfig", help="print the kubeconfig files of the lab that runs")
    paths.set_defaults(run=_kubeconfig)
    return parser


if __name__ == "__main__":
    sys.exit(main())
