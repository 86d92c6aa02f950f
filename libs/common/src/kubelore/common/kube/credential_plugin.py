"""Credential plugins (`users[].user.exec`): refused, unless the operator allows that very command line.

An allowed command line is written in the settings as one would type it, with
the program's absolute path, for example
`/usr/local/bin/aws --region * eks get-token --cluster-name * --output json`.
Every word must be equal; a word `*` stands for one word of letters, digits, `.`,
`_` and `-` that does not begin with `-`, so that neither an option nor a path can
take its place. The command runs without a shell, with a deadline. Its environment
is what the settings say and nothing else: neither the kubeconfig's nor this
process' own, which holds passwords. It is checked again whenever a connection is
made, so that a command which is no longer allowed no longer runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from kubelore.common.errors import KubeconfigRefused, Unauthenticated
from kubelore.common.kube.access import ClusterAccess, ExecCommand
from kubelore.common.kube.addresses import AddressPolicy

PLUGIN_DEADLINE_S = 15.0
MAX_PLUGIN_OUTPUT = 256 * 1024
CREATE_SERVICE_ACCOUNT = (
    "run `kubelore clusters add --create-service-account` where kubectl reaches the cluster: "
    "it makes a service account with a token that Kubelore renews"
)
"""The way in for kubeconfigs that need a program to run."""

_ASSUMED_LIFE = timedelta(minutes=5)
_REFRESH_BEFORE = timedelta(minutes=1)
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class _Exec(msgspec.Struct, rename="camel"):
    command: str
    args: list[str] | None = None
    env: list[Any] | None = None
    api_version: str | None = None
    provide_cluster_info: bool | None = None
    interactive_mode: str | None = None


class _CredentialStatus(msgspec.Struct, rename="camel"):
    token: str | None = None
    expiration_timestamp: datetime | None = None


class _ExecCredential(msgspec.Struct):
    status: _CredentialStatus


def check_exec(section: dict[str, Any], policy: AddressPolicy) -> ExecCommand:
    """The command of an `exec` section, if the policy allows it; else KubeconfigRefused (`exec`)."""
    try:
        wanted = msgspec.convert(section, _Exec)
    except msgspec.ValidationError as error:
        raise _refused(f"its exec section cannot be read: {error}") from error
    argv = (wanted.command, *(wanted.args or ()))
    check_allowed(argv, policy)
    if wanted.env:
        raise _refused(
            "its command brings environment variables; those are set by the operator (KUBELORE_EXEC_ENVIRONMENT)"
        )
    if wanted.api_version not in _API_VERSIONS or wanted.interactive_mode == "Always":
        raise _refused("its command needs a terminal, or speaks an API version that is no longer served")
    return ExecCommand(
        argv=argv,
        api_version=wanted.api_version or _API_VERSIONS[0],
        provide_cluster_info=bool(wanted.provide_cluster_info),
    )


def check_allowed(argv: tuple[str, ...], policy: AddressPolicy) -> None:
    """Raise KubeconfigRefused (`exec`) unless the policy allows this command line, word for word."""
    if not any(_matches(shlex.split(allowed), argv) for allowed in policy.exec_allowed):
        raise _refused("it names a command to run (exec), which this installation does not allow")


def _matches(pattern: list[str], argv: tuple[str, ...]) -> bool:
    if len(pattern) != len(argv) or not pattern or pattern[0] != argv[0]:
        return False
    return all(
        word == given or (word == "*" and _PLAIN_WORD.fullmatch(given) is not None)
        for word, given in zip(pattern[1:], argv[1:], strict=True)
    )


def _refused(why: str) -> KubeconfigRefused:
    return KubeconfigRefused(
        f"the user cannot be used: {why}",
        code="exec",
        remedy=f"{CREATE_SERVICE_ACCOUNT}; or let the operator add the exact command line, with the program's "
        "absolute path, to KUBELORE_ALLOWED_EXEC_COMMANDS",
    )


class CredentialPlugin:
    """Runs an allowed command when a token is needed, and keeps the token until shortly before it expires."""

    def __init__(self, access: ClusterAccess, command: ExecCommand, environment: Mapping[str, str]) -> None:
        self._access = access
        self._command = command
        self._environment = environment
        self._lock = asyncio.Lock()
        self._token = ""
        self._fresh_until = datetime.min.replace(tzinfo=UTC)

    async def token(self) -> str:
        """A valid token; raises Unauthenticated when the command fails, hangs or answers without one."""
        async with self._lock:
            if datetime.now(UTC) >= self._fresh_until:
                status = await self._run()
                self._token = status.token or ""
                expires = status.expiration_timestamp or datetime.now(UTC) + _ASSUMED_LIFE
                self._fresh_until = expires - _REFRESH_BEFORE
            return self._token

    def forget(self) -> None:
        """Drop the token: the API server no longer takes it."""
        self._fresh_until = datetime.min.replace(tzinfo=UTC)

    async def _run(self) -> _CredentialStatus:
        name = self._command.argv[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={**self._environment, "KUBERNETES_EXEC_INFO": self._exec_info()},
            )
        except OSError as error:
            raise _plugin_failed(name, f"cannot be started ({error.strerror})") from error
        try:
            async with asyncio.timeout(PLUGIN_DEADLINE_S):
                output = await _read_bounded(process)
                code = await process.wait() if len(output) <= MAX_PLUGIN_OUTPUT else None
        except TimeoutError as error:
            raise _plugin_failed(name, f"did not answer within {PLUGIN_DEADLINE_S:g} s") from error
        finally:
            await _end(process)
        if len(output) > MAX_PLUGIN_OUTPUT:
            raise _plugin_failed(name, f"answered with more than {MAX_PLUGIN_OUTPUT} bytes")
        if code != 0:
            raise _plugin_failed(name, f"ended with exit code {code}")
        return _parse_credential(name, output)

    def _exec_info(self) -> str:
        spec: dict[str, Any] = {"interactive": False}
        if self._command.provide_cluster_info:
            spec["cluster"] = {
                "server": self._access.server,
                "certificate-authority-data": self._access.ca_pem,
                "tls-server-name": self._access.tls_server_name,
                "insecure-skip-tls-verify": self._access.insecure,
            }
        info = {"apiVersion": self._command.api_version, "kind": "ExecCredential", "spec": spec}
        return msgspec.json.encode(info).decode()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a command that still runs, and collect it, so that nothing of it is left."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _read_bounded(process: asyncio.subprocess.Process) -> bytes:
    if process.stdout is None:
        return b""
    output = bytearray()
    while len(output) <= MAX_PLUGIN_OUTPUT:
        chunk = await process.stdout.read(MAX_PLUGIN_OUTPUT)
        if not chunk:
            break
        output += chunk
    return bytes(output)


def _parse_credential(name: str, output: bytes) -> _CredentialStatus:
    try:
        status = msgspec.json.decode(output, type=_ExecCredential).status
    except msgspec.MsgspecError as error:
        raise _plugin_failed(name, "answered with something that is no ExecCredential") from error
    if not status.token or any(not 0x21 <= ord(character) <= 0x7E for character in status.token):
        raise _plugin_failed(name, "answered without a usable token")
    if status.expiration_timestamp is not None and status.expiration_timestamp.tzinfo is None:
        status.expiration_timestamp = status.expiration_timestamp.replace(tzinfo=UTC)
    return status


def _plugin_failed(name: str, why: str) -> Unauthenticated:
    return Unauthenticated(
        f"the credential plugin {name!r} {why}",
        remedy="run the same command by hand as the user of this service",
    )
