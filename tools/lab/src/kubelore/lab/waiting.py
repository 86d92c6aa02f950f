"""Wait for a condition with a deadline, never for a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kubelore.lab.errors import LabError

_T = TypeVar("_T")


async def wait_for(
    condition: Callable[[], Awaitable[_T]],
    what: str,
    seconds: float = 30,
    every: float = 0.1,
    ignoring: tuple[type[Exception], ...] = (),
) -> _T:
    """Ask until `condition` answers something true, and return that.

    `what` completes the sentence "waited in vain for ...". Exceptions named in `ignoring` count as "not yet";
    the last one is the cause of the LabError that ends the wait.
    """
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while True:
        try:
            async with asyncio.timeout(max(0.01, deadline - time.monotonic())):
                answer = await condition()
            if answer:
                return answer
        except ignoring as error:
            last = error
        except TimeoutError as error:
            last = error
        if time.monotonic() >= deadline:
            raise LabError(f"waited {seconds:g} s in vain for {what}") from last
        await asyncio.sleep(every)
