#!/usr/bin/env python3
"""From make and python3 to a working environment, with nothing installed before.

    python3 bootstrap.py [--dev] [COMMAND [ARGUMENT ...]]

Finds `uv` on PATH, or takes the release that uv.lock pins: downloaded from the
address in the lock (or from the index that UV_DEFAULT_INDEX, UV_INDEX_URL or
PIP_INDEX_URL names), checked against the sha256 in the lock, and kept in `.uv/`.
Then `uv sync --frozen` makes the environment, and COMMAND runs from it.

Only the standard library is used, and neither pip nor venv nor ensurepip.
Proxies (HTTPS_PROXY, NO_PROXY), SSL_CERT_FILE and every UV_* variable work as usual.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import io
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent
UV_HOME = ROOT / ".uv"
MAX_WHEEL_BYTES = 200 * 1024 * 1024
MAX_PAGE_BYTES = 50 * 1024 * 1024
DOWNLOAD_TIMEOUT_S = 60
TRIES = 3
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")


class BootstrapError(Exception):
    """What the person at the terminal is told, without a traceback."""


def main() -> int:
    """Make the environment, then become the command. Returns the exit code when it cannot."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whatever python3 is here runs this file
        running = platform.python_version()
        print(f"Kubelore needs Python 3.11 or newer; {sys.executable} is {running}.", file=sys.stderr)
        print("Name another with `make PYTHON=python3.12 ...`.", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(description="Make the project's environment and run a command from it.")
    parser.add_argument("--dev", action="store_true", help="also what tests and linters need")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="runs from the environment")
    arguments = parser.parse_args()
    try:
        sync(find_uv(), dev=arguments.dev)
        if arguments.command:
            become(arguments.command)
    except BootstrapError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    return 0


def environment() -> Path:
    """Where uv makes the environment."""
    return ROOT / (os.environ.get("UV_PROJECT_ENVIRONMENT") or ".venv")


def sync(uv: Path, *, dev: bool) -> None:
    """Install what the lock says. What is there for development stays when only the product is asked for."""
    command = [str(uv), "sync", "--frozen", "--project", str(ROOT), "--quiet"]
    if not dev:
        command += ["--no-dev", "--inexact"]
    if not (environment() / "bin" / "python").exists():
        print("Making the environment (once; it downloads some 100 MB) ...", file=sys.stderr, flush=True)
        command.remove("--quiet")
        command.append("--compile-bytecode")  # else every process of the first start compiles for itself
        if "UV_PYTHON" not in os.environ:
            command += ["--python", sys.executable]
    # The system's certificates, as Python itself uses: a company's proxy has its own authority there.
    trusting = {"UV_SYSTEM_CERTS": "1", **os.environ}
    done = subprocess.run(command, cwd=ROOT, env=trusting, check=False)
    if done.returncode != 0:
        raise BootstrapError(f"`{' '.join(command)}` ended with code {done.returncode}")


def become(command: list[str]) -> None:
    """Replace this process by a command of the environment, so that signals reach it directly."""
    program = environment() / "bin" / command[0]
    if not program.exists():
        raise BootstrapError(f"{program} does not exist")
    sys.stdout.flush()
    os.execv(program, [str(program), *command[1:]])  # noqa: S606


def find_uv() -> Path:
    """uv of PATH when it is new enough, else the pinned one, downloaded when it is not there yet."""
    package = locked_uv()
    installed = shutil.which("uv")
    if installed and new_enough(installed, package["version"]):
        return Path(installed)
    binary = UV_HOME / package["version"] / "uv"
    if not binary.exists():
        install(choose_wheel(package["wheels"]), binary)
    return binary


def locked_uv() -> dict:
    """The entry of `uv` in uv.lock."""
    import tomllib

    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    for package in lock["package"]:
        if package["name"] == "uv":
            return package
    raise BootstrapError("uv.lock does not pin uv")


def new_enough(uv: str, pinned: str) -> bool:
    """Whether it runs, and is at least of the pinned minor version."""
    try:
        shown = subprocess.run([uv, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.match(r"uv (\d+)\.(\d+)", shown.stdout)
    wanted = tuple(int(part) for part in pinned.split(".")[:2])
    return shown.returncode == 0 and found is not None and (int(found[1]), int(found[2])) >= wanted


def choose_wheel(wheels: list[dict]) -> dict:
    """The first wheel with a tag that this machine can run."""
    for wheel in wheels:
        tags = file_name(wheel["url"]).removesuffix(".whl").rsplit("-", 1)[-1].split(".")
        if any(fits(tag) for tag in tags):
            return wheel
    here = f"{platform.system()} {platform.machine()}"
    raise BootstrapError(f"uv has no wheel for {here}: install uv yourself and put it on PATH")


def fits(tag: str) -> bool:
    """Whether a platform tag (PEP 600, PEP 656, macOS) fits this machine."""
    found = re.fullmatch(r"(manylinux|musllinux|macosx)_(\d+)_(\d+)_(.+)", tag)
    if found is None:
        return False
    family, needed, machine = found[1], (int(found[2]), int(found[3])), found[4]
    if machine not in {platform.machine(), "universal2"}:
        return False
    if family == "macosx":
        return sys.platform == "darwin" and release(platform.mac_ver()[0]) >= needed
    if sys.platform != "linux":
        return False
    libc, version = platform.libc_ver()
    if family == "manylinux":
        return libc == "glibc" and release(version) >= needed
    return libc != "glibc"  # Python 3.11 has no name for musl


def release(version: str) -> tuple[int, int]:
    """Major and minor of a dotted version, zero where there is none."""
    major, minor, *_ = [int(part) for part in re.findall(r"\d+", version)] + [0, 0]
    return major, minor


def file_name(url: str) -> str:
    """The last part of an address, decoded."""
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1])


def install(wheel: dict, binary: Path) -> None:
    """Download, verify, and put the binary in place in one step."""
    print(f"Downloading {file_name(wheel['url'])} ...", file=sys.stderr, flush=True)
    content = download_wheel(wheel)
    binary.parent.mkdir(parents=True, exist_ok=True)
    (UV_HOME / ".gitignore").write_text("*\n", encoding="utf-8")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [name for name in archive.namelist() if name.endswith(".data/scripts/uv")]
        if len(members) != 1:
            raise BootstrapError("the wheel of uv holds no program where one is expected")
        program = archive.read(members[0])
    with tempfile.NamedTemporaryFile(dir=binary.parent, delete=False) as partial:
        partial.write(program)
    Path(partial.name).chmod(0o755)
    Path(partial.name).replace(binary)


def download_wheel(wheel: dict) -> bytes:
    """The wheel's bytes, from the configured index when there is one, else from the lock's address.

    Raises BootstrapError when neither gives bytes of the hash in the lock.
    """
    failures = []
    for source in (from_index, from_lock):
        try:
            content = source(wheel)
        except (OSError, ValueError) as error:
            failures.append(str(error))
            continue
        if content is None:
            continue
        if "sha256:" + hashlib.sha256(content).hexdigest() == wheel["hash"]:
            return content
        failures.append(f"{file_name(wheel['url'])} does not have the sha256 that uv.lock says")
    raise BootstrapError("cannot download uv: " + "; ".join(failures))


def from_lock(wheel: dict) -> bytes:
    """From the address in the lock."""
    return fetch(wheel["url"], MAX_WHEEL_BYTES)


def from_index(wheel: dict) -> bytes | None:
    """From the package index that the environment names, None when it names none or has no such file."""
    index = next((os.environ[name] for name in INDEX_VARIABLES if os.environ.get(name)), None)
    if index is None:
        return None
    page_url = index.rstrip("/") + "/uv/"
    links = Links()
    links.feed(fetch(page_url, MAX_PAGE_BYTES).decode("utf-8", errors="replace"))
    wanted = file_name(wheel["url"])
    for link in links.found:
        if file_name(link) == wanted:
            return fetch(with_userinfo_of(page_url, urllib.parse.urljoin(page_url, link)), MAX_WHEEL_BYTES)
    return None


class Links(HTMLParser):
    """The targets of the links on a page of a package index (PEP 503)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep `href` of `a`."""
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def with_userinfo_of(base: str, url: str) -> str:
    """The address with the credentials of the index, when it lies on the same host."""
    origin, target = urllib.parse.urlsplit(base), urllib.parse.urlsplit(url)
    if "@" not in origin.netloc or origin.netloc.rsplit("@", 1)[1] != target.netloc:
        return url
    return target._replace(netloc=origin.netloc).geturl()


def fetch(url: str, limit: int) -> bytes:
    """GET with a few tries, at most `limit` bytes. Raises OSError or ValueError."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"{parts.scheme}: addresses are not followed")
    userinfo, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())  # noqa: S310
    request.add_header("User-Agent", "kubelore-bootstrap")
    if userinfo:
        token = base64.b64encode(urllib.parse.unquote(userinfo).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    for attempt in range(TRIES):
        try:
            return read(request, limit)
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == TRIES - 1:
                raise OSError(f"{host} answered {error.code} for {file_name(url) or parts.path}") from error
        except OSError as error:
            if attempt == TRIES - 1:
                raise OSError(f"{host} cannot be reached: {error}") from error
        time.sleep(2**attempt)
    raise OSError(f"{host} cannot be reached")


def read(request: urllib.request.Request, limit: int) -> bytes:
    """The body of one answer; over the limit raises ValueError."""
    context = ssl.create_default_context()
    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"):
        bundle = os.environ.get(name)
        if bundle and "SSL_CERT_FILE" not in os.environ:
            with contextlib.suppress(OSError):
                context.load_verify_locations(cafile=bundle)
    with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT_S, context=context) as answer:  # noqa: S310
        content = answer.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit} bytes came from {request.host}")
    return content


if __name__ == "__main__":
    sys.exit(main())
