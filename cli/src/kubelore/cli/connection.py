"""How the CLI finds a running Kubelore, and talks to it.

URL and token come from `--url` and `--token` (KUBELORE_URL, KUBELORE_TOKEN),
else from the login that `--target` names, else from the data directory that
`--data` names, else from the last login, else from a stack on this machine. The
token of a login or of a data directory is sent to its own URL, never to another.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from kubelore.cli.logins import Logins
from kubelore.common.errors import (
    DeadlineExceeded,
    KubeloreError,
    Unauthenticated,
    Unavailable,
    error_from_parts,
)

if TYPE_CHECKING:
    import httpx

REQUEST_S = 30.0
"""Longest wait for an answer; onboarding a cluster tests its connection first."""

SILENCE_S = 60.0
"""A stream of events that is silent for so long is dead: the server sends a sign of life more often."""

TRANSFER_S = 600.0
"""Of a file's content nothing may come for so long: what is unpacked or hashed says nothing meanwhile."""

_MAX_EVENT = 32 * 1024 * 1024


@dataclass(frozen=True)
class Target:
    """What the options before the command say; empty where nothing was said."""

    url: str = ""
    token: str = field(default="", repr=False)
    data: Path | None = None
    login: str = ""

    def directory(self) -> Path:
        """The data directory: the one named, else the default."""
        from kubelore.stack.layout import default_data_directory

        return self.data.expanduser().absolute() if self.data else default_data_directory()

    def resolve(self) -> tuple[str, str]:
        """URL and token. Raises `Unavailable`, `Unauthenticated` or `NotFound`, saying what to do."""
        url = self.url.rstrip("/")
        if url and self.token:
            return url, self.token
        logins = Logins.load()
        name = self.login or ("" if self.data or url or self.token else logins.current)
        if name:
            chosen = logins.get(name)
            if url in ("", chosen.url):
                return chosen.url, self.token or chosen.token
        elif url and (known := logins.of_url(url)):
            return url, known.token
        return self._on_this_machine(url)

    def _on_this_machine(self, url: str) -> tuple[str, str]:
        local = self.local_url() if not url or self._running() else ""
        if self.token:
            return url or local, self.token
        if url and url != local:
            raise Unauthenticated(
                f"no token for {url}", remedy="`kubelore login` keeps one, or give it with --token."
            )
        from kubelore.stack.layout import DataDirectory

        return local, DataDirectory(self.directory()).admin_token.read_text().strip()

    def local_url(self) -> str:
        """Where the stack of the data directory answers. Raises `Unavailable` when none runs."""
        if not (url := self._running()):
            raise Unavailable(
                f"no Kubelore runs on {self.directory()}",
                remedy="Start it with `kubelore up`, or log in to a running one: `kubelore login URL`.",
            )
        return url

    def _running(self) -> str:
        from kubelore.stack.layout import DataDirectory, RunningStack

        running = RunningStack.now(DataDirectory(self.directory()))
        return running.url.rstrip("/") if running is not None and running.phase != "stopping" else ""


class ApiError(Exception):
    """A call that failed, with the error that the problem document told.

    `transient` is true when the same call may well succeed a little later.
    """

    def __init__(self, error: KubeloreError) -> None:
        super().__init__(error.detail)
        self.error = error

    @property
    def transient(self) -> bool:
        """Whether trying again makes sense."""
        return self.error.status in (429, 502, 503, 504)

    def message(self) -> str:
        """What went wrong, and what to do about it."""
        return f"{self.error.detail} - {self.error.remedy}" if self.error.remedy else self.error.detail

    def exit(self) -> NoReturn:
        """Tell it on stderr and end with code 1."""
        tell(self.error)
        raise typer.Exit(1)


def tell(error: KubeloreError) -> None:
    """An error for the person at the terminal, on stderr."""
    typer.echo(f"error: {_printable(error.detail)}", err=True)
    if error.remedy:
        typer.echo(f"       {_printable(error.remedy)}", err=True)


class Api:
    """The API of one Kubelore. Every method raises ApiError."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str, **query: Any) -> Any:
        """The parsed answer.

        A trailing underscore of a name is dropped (`continue_`), and so is what is None.
        """
        return self._call("GET", path, params=_query(query))

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        """The parsed pages of a list, to its end; each is asked for when the one before it was taken."""
        position: str | None = None
        while True:
            page = self.get(path, continue_=position, **query)
            yield page
            position = page["continue"]
            if not position:
                return

    def items(self, path: str, **query: Any) -> Iterator[Any]:
        """What is on those pages, one by one."""
        for page in self.pages(path, **query):
            yield from page["items"]

    def post(self, path: str, body: Any, *, timeout_s: float = REQUEST_S) -> Any:
        """The parsed answer; without a body when it is None."""
        if body is None:
            return self._call("POST", path, timeout=timeout_s)
        return self._call("POST", path, json=body, timeout=timeout_s)

    def try_post(self, path: str, body: Any) -> ApiError | None:
        """None when it succeeded, else what it failed with."""
        try:
            self.post(path, body)
        except ApiError as error:
            return error
        return None

    def patch(self, path: str, body: Any) -> Any:
        """The parsed answer."""
        return self._call("PATCH", path, json=body)

    def put(self, path: str, body: Any, *, headers: dict[str, str] | None = None) -> Any:
        """The parsed answer."""
        return self._call("PUT", path, json=body, headers=headers)

    def delete(self, path: str) -> Any:
        """The parsed answer."""
        return self._call("DELETE", path)

    def events(self, path: str, *, last_event_id: str = "", **query: Any) -> Iterator[tuple[str, str, Any]]:
        """Server-sent events as (id, name, parsed data), until the server ends the stream."""
        import httpx

        headers = {"Accept": "text/event-stream"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        request = self._client.build_request(
            "GET",
            path,
            params=_query(query),
            headers=headers,
            timeout=httpx.Timeout(REQUEST_S, read=SILENCE_S),
        )
        with _typed_errors(), contextlib.closing(self._client.send(request, stream=True)) as answer:
            if answer.status_code >= 400:
                answer.read()
                raise _problem(answer)
            yield from parse_events(answer.iter_lines())

    def lines(self, path: str, **query: Any) -> Iterator[Any]:
        """The parsed lines of an answer that is one JSON document a line; empty lines are skipped."""
        import httpx

        timeout = httpx.Timeout(REQUEST_S, read=SILENCE_S)
        request = self._client.build_request("GET", path, params=_query(query), timeout=timeout)
        with _typed_errors(), contextlib.closing(self._client.send(request, stream=True)) as answer:
            if answer.status_code >= 400:
                answer.read()
                raise _problem(answer)
            for line in answer.iter_lines():
                if line:
                    yield json.loads(line)

    @contextlib.contextmanager
    def file(self, path: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        """An answer that is a file: its size in bytes, and its content in pieces as they come."""
        import httpx

        timeout = httpx.Timeout(REQUEST_S, read=SILENCE_S)
        request = self._client.build_request("GET", path, timeout=timeout)
        with _typed_errors(), contextlib.closing(self._client.send(request, stream=True)) as answer:
            if answer.status_code >= 400:
                answer.read()
                raise _problem(answer)
            yield int(answer.headers.get("content-length", 0)), answer.iter_bytes()

    @contextlib.contextmanager
    def stream(
        self, path: str, headers: dict[str, str], **query: Any
    ) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
        """An answer of any length: its headers in small letters, and its content in pieces as they come."""
        import httpx

        timeout = httpx.Timeout(REQUEST_S, read=TRANSFER_S)
        request = self._client.build_request(
            "GET", path, params=_query(query), headers=headers, timeout=timeout
        )
        with _typed_errors(), contextlib.closing(self._client.send(request, stream=True)) as answer:
            if answer.status_code >= 400:
                answer.read()
                raise _problem(answer)
            yield {name.lower(): value for name, value in answer.headers.items()}, answer.iter_raw()

    def send(self, path: str, content: Iterator[bytes], **query: Any) -> Any:
        """The parsed answer to a body that is made while it is sent."""
        import httpx

        timeout = httpx.Timeout(REQUEST_S, read=TRANSFER_S, write=TRANSFER_S)
        headers = {"Content-Type": "application/octet-stream"}
        return self._call(
            "POST", path, params=_query(query), content=content, headers=headers, timeout=timeout
        )

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        with _typed_errors():
            answer = self._client.request(method, path, **arguments)
            if answer.status_code >= 400:
                raise _problem(answer)
            return answer.json() if answer.content else None


@contextlib.contextmanager
def connect(context: typer.Context) -> Iterator[Api]:
    """The API that the options before the command lead to. Raises what `Target.resolve` does."""
    target = context.find_object(Target) or Target()
    with at(*target.resolve()) as api:
        yield api


@contextlib.contextmanager
def at(url: str, token: str) -> Iterator[Api]:
    """The API at a URL, with a token."""
    import httpx

    headers = {"Authorization": f"Bearer {token}", "User-Agent": "kubelore-cli"}
    with httpx.Client(base_url=url, headers=headers, timeout=REQUEST_S, follow_redirects=False) as client:
        yield Api(client)


def parse_events(lines: Iterator[str]) -> Iterator[tuple[str, str, Any]]:
    """Events out of the lines of a text/event-stream (WHATWG HTML, section 9.2); comments are skipped."""
    event_id, name, data, size = "", "message", list[str](), 0
    for line in lines:
        if not line:
            if data:
                yield event_id, name, json.loads("\n".join(data))
            name, data, size = "message", [], 0
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        size += len(value)
        if size > _MAX_EVENT:
            raise ApiError(Unavailable("the server sent an event of unreasonable size"))
        if key == "data":
            data.append(value)
        elif key == "event":
            name = value
        elif key == "id":
            event_id = value


@contextlib.contextmanager
def _typed_errors() -> Iterator[None]:
    import httpx

    try:
        yield
    except httpx.TimeoutException as error:
        slow = DeadlineExceeded("no answer in time", remedy="`kubelore status` tells what runs.")
        raise ApiError(slow) from error
    except httpx.HTTPError as error:
        away = Unavailable(f"cannot reach Kubelore: {error}", remedy="`kubelore status` tells what runs.")
        raise ApiError(away) from error
    except (httpx.InvalidURL, ValueError) as error:
        strange = Unavailable(f"that does not look like Kubelore: {error}", remedy="Check --url.")
        raise ApiError(strange) from error


def _problem(answer: httpx.Response) -> ApiError:
    fallback = f"{answer.request.url.path} answered {answer.status_code}"
    try:
        document = answer.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    known = {"type", "title", "status", "reason", "detail", "remedy"}
    return ApiError(
        error_from_parts(
            str(document.get("reason", "")),
            answer.status_code,
            str(document.get("detail", fallback)),
            document.get("remedy"),
            {name: value for name, value in document.items() if name not in known and name.isidentifier()},
        )
    )


def _query(values: dict[str, Any]) -> dict[str, Any]:
    return {name.rstrip("_"): value for name, value in values.items() if value is not None}


def _printable(text: str) -> str:
    # Messages may quote names that come from clusters: no control character reaches the terminal.
    replaced = "\N{REPLACEMENT CHARACTER}"
    return "".join(char if char.isprintable() or char == "\n" else replaced for char in text)
