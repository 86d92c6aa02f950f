"""What a client does inside containers: run commands, and read logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from kubelore.common.errors import Unavailable
from kubelore.common.kube.exec import IDLE_S, PROTOCOLS, ExecStream
from kubelore.common.kube.resource_type import PODS
from kubelore.common.kube.transport import NETWORK_ERRORS, Transport

FOLLOW_IDLE_S = 4 * 3600.0


class Containers:
    """Commands and logs of one cluster's containers; see KubeClient."""

    transport: Transport

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str | None,
        command: list[str],
        *,
        stdin: bool = False,
        tty: bool = False,
        idle_s: float = IDLE_S,
    ) -> ExecStream:
        """Start a command. The words go to the container as they are: no shell on the way.

        Raises NotFound, Forbidden, BadRequest (no such container). With `tty`
        the container mixes stderr into stdout.
        """
        query = [("command", word) for word in command]
        query += [("stdin", str(stdin).lower()), ("stdout", "true")]
        query += [("stderr", str(not tty).lower()), ("tty", str(tty).lower())]
        if container:
            query.append(("container", container))
        path = PODS.path(namespace, pod, "exec")
        socket = await self.transport.websocket(path, query=query, protocols=PROTOCOLS)
        if socket.protocol not in PROTOCOLS:
            await socket.close()
            raise Unavailable("the API server opened no channel protocol that exec needs", step="http")
        return ExecStream(socket, idle_s=idle_s)

    async def logs(
        self,
        namespace: str,
        pod: str,
        container: str | None = None,
        *,
        follow: bool = False,
        previous: bool = False,
        tail: int | None = None,
        since_s: int | None = None,
        since_time: str | None = None,
        timestamps: bool = False,
        limit_bytes: int | None = None,
        idle_s: float | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """A container's log in chunks as they come, not cut at lines.

        `since_s` is seconds back, `since_time` RFC 3339. The default for
        `idle_s` is hours while following, else the client's deadline. Raises
        Unavailable when the stream breaks or is silent for that long.
        """
        asked = {
            "container": container,
            "follow": follow,
            "previous": previous,
            "timestamps": timestamps,
            "tailLines": tail,
            "sinceSeconds": since_s,
            "sinceTime": since_time,
            "limitBytes": limit_bytes,
        }
        query = {key: value for key, value in asked.items() if value is not None}
        path = PODS.path(namespace, pod, "log")
        idle = idle_s or (FOLLOW_IDLE_S if follow else self.transport.timeout_s)
        async with self.transport.stream(path, query=query, accept="text/plain, */*") as response:
            chunks = response.content.iter_any()
            while True:
                try:
                    async with asyncio.timeout(idle):
                        chunk = await anext(chunks, b"")
                except NETWORK_ERRORS as error:
                    raise self.transport.broken(error, "GET", path, idle) from error
                if not chunk:
                    return
                yield chunk
