"""`python -m tests.bench`: measures, prints a table and, when everything ran, writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.backing_up import back_up
from tests.bench.collecting import collect
from tests.bench.copying import copy
from tests.bench.executing import execute
from tests.bench.figures import Row
from tests.bench.following_logs import follow_logs
from tests.bench.machine import facts, load
from tests.bench.reading import bulk, busy, get, page, select
from tests.bench.recording import record
from tests.bench.remembering import record_lab
from tests.bench.report import print_table, write
from tests.bench.searching import search_logs
from tests.bench.size import FULL, QUICK
from tests.bench.standing_still import stopped
from tests.bench.startup import startup
from tests.bench.sync import sync
from tests.bench.terminals import type_keys
from tests.bench.watching import watch, watch_lab
from tests.bench.world import World

BENCHMARKS: dict[str, Callable[[World], list[Row]]] = {
    "startup": startup,
    "sync": sync,
    "page": page,
    "select": select,
    "bulk": bulk,
    "get": get,
    "busy": busy,
    "stopped": stopped,
    "terminal": type_keys,
    "watch": watch,
    "watch-lab": watch_lab,
    "record": record,
    "record-lab": record_lab,
    "backup": back_up,
    "logs": follow_logs,
    "copy": copy,
    "search-logs": search_logs,
    "collect": collect,
    "exec": execute,
}
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main() -> None:
    """Run what was asked for; a benchmark that fails ends the run."""
    arguments = _arguments()
    names = arguments.only or list(BENCHMARKS)
    load_before = load()
    rows: list[Row] = []
    # A stop from outside takes the same way out as Ctrl-C, so that everything started here is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    os.chdir(DOCUMENT.parents[1])
    size = QUICK if arguments.quick else FULL
    try:
        with (
            tempfile.TemporaryDirectory(prefix="kubelore-bench-") as folder,
            World(Path(folder), size) as world,
        ):
            for name in names:
                begun = time.monotonic()
                rows += BENCHMARKS[name](world)
                print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    finally:
        print_table(rows)
    document = arguments.write or (None if arguments.quick or arguments.only else DOCUMENT)
    if document is not None:
        write(document, rows, facts(load_before))
        print(f"written to {document}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="this one; may be repeated")
    parser.add_argument(
        "--quick", action="store_true", help="small clusters, short runs: only proves that it runs"
    )
    parser.add_argument("--write", type=Path, help="write the table into this file, whatever was measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
