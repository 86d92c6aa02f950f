"""Making what the bus holds: `python -m kubelore.common.bus.prepare`, as its operator, before services may use it.

Streams, buckets and durables decide what is kept and who may read it, so no
service is allowed to make or change them. Running it again adjusts what a newer
release keeps otherwise; running it while services work disturbs nobody.
"""

from __future__ import annotations

import asyncio
import sys

from kubelore.common.bus.connection import Bus, connect
from kubelore.common.bus.streams import create_durables, ensure_streams
from kubelore.common.contracts.flows import CHANGE_CONSUMERS
from kubelore.common.contracts.permissions import OPERATOR
from kubelore.common.errors import KubeloreError
from kubelore.common.settings import CommonSettings


async def prepare(bus: Bus) -> None:
    """Every stream and bucket, and the durables of every service that consumes changes."""
    await ensure_streams(bus)
    for service in CHANGE_CONSUMERS:
        await create_durables(bus, service)


async def _run(settings: CommonSettings) -> None:
    bus = await connect(settings, name=OPERATOR)
    try:
        await prepare(bus)
    finally:
        await bus.close()


if __name__ == "__main__":
    try:
        asyncio.run(_run(CommonSettings()))
    except KubeloreError as error:
        sys.exit(f"the bus is not prepared: {error.detail} {error.remedy or ''}")
