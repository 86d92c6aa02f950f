"""bootstrap.py on a machine that has python3 and nothing else, beside a package index of our own."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import io
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).parents[2] / "bootstrap.py"
EVERY_MACHINE = "manylinux_2_17_{0}.musllinux_1_1_{0}.macosx_10_12_{0}".format(os.uname().machine)
FAKE_UV = """#!/bin/sh
if [ "$1" = --version ]; then echo "uv $VERSION"; exit 0; fi
echo "$0 $@" >> uv-calls
mkdir -p .venv/bin
printf '#!/bin/sh\\necho "ran with $@"\\n' > .venv/bin/kubelore
chmod +x .venv/bin/kubelore
"""


@dataclass
class Index:
    """A package index that answers what it is told to, and remembers who asked."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def index() -> Iterator[Index]:
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, self.headers.get("Authorization", "")))
            content = made.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        made = Index(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


@functools.cache
def wheel() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("uv/__init__.py", "")
        archive.writestr("uv-9.9.9.data/scripts/uv", FAKE_UV)
    return content.getvalue()


@dataclass
class Project:
    """A checkout with a lock that pins uv 9.9.9 at the index."""

    root: Path
    index: Index
    tags: str = EVERY_MACHINE
    sha256: str = hashlib.sha256(wheel()).hexdigest()

    @property
    def wheel_name(self) -> str:
        return f"uv-9.9.9-py3-none-{self.tags}.whl"

    def bootstrap(self, *arguments: str, path: str = "/usr/bin:/bin", **environment: str) -> tuple[int, str]:
        shutil.copy(BOOTSTRAP, self.root)
        (self.root / "uv.lock").write_text(
            f'version = 1\n[[package]]\nname = "uv"\nversion = "9.9.9"\n'
            f'wheels = [{{ url = "{self.index.url}/locked/{self.wheel_name}", hash = "sha256:{self.sha256}" }}]\n'
        )
        done = subprocess.run(
            [sys.executable, "bootstrap.py", *arguments],
            cwd=self.root,
            env={"PATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def uv_calls(self) -> str:
        calls = self.root / "uv-calls"
        return calls.read_text() if calls.exists() else ""


@pytest.fixture
def project(tmp_path: Path, index: Index) -> Project:
    made = Project(tmp_path, index)
    index.files[f"/locked/{made.wheel_name}"] = wheel()
    return made


def test_uv_is_fetched_verified_and_used(project: Project) -> None:
    code, said = project.bootstrap("kubelore", "up", "--no-demo")
    assert code == 0, said
    assert "ran with up --no-demo" in said
    assert f"{project.root}/.uv/9.9.9/uv sync --frozen" in project.uv_calls()


def test_a_second_run_downloads_nothing(project: Project) -> None:
    project.bootstrap()
    code, said = project.bootstrap()
    assert code == 0, said
    assert len(project.index.asked) == 1
    assert len(project.uv_calls().splitlines()) == 2


def test_what_the_hash_does_not_fit_is_never_run(project: Project) -> None:
    project.sha256 = "0" * 64
    code, said = project.bootstrap("kubelore", "up")
    assert code == 1
    assert "does not have the sha256" in said
    assert project.uv_calls() == ""
    assert not (project.root / ".uv" / "9.9.9").exists()


def test_another_machines_wheel_is_not_taken(project: Project) -> None:
    project.tags = "manylinux_2_17_sparc.macosx_10_12_ppc"
    code, said = project.bootstrap()
    assert code == 1
    assert "uv has no wheel for" in said


def test_a_configured_index_comes_first_and_gets_its_credentials(project: Project, index: Index) -> None:
    index.files["/simple/uv/"] = f'<a href="../../files/{project.wheel_name}#sha256=x">uv</a>'.encode()
    index.files[f"/files/{project.wheel_name}"] = wheel()
    with_credentials = index.url.replace("http://", "http://me:secret@") + "/simple"
    code, said = project.bootstrap(PIP_INDEX_URL=with_credentials)
    assert code == 0, said
    basic = "Basic " + base64.b64encode(b"me:secret").decode()
    assert index.asked == [("/simple/uv/", basic), (f"/files/{project.wheel_name}", basic)]


def test_an_index_without_the_file_leaves_it_to_the_lock(project: Project, index: Index) -> None:
    code, said = project.bootstrap(UV_DEFAULT_INDEX=f"{index.url}/simple")
    assert code == 0, said
    assert [path for path, _ in index.asked] == ["/simple/uv/", f"/locked/{project.wheel_name}"]


@pytest.mark.parametrize(("version", "is_used"), [("9.9.1", True), ("10.0.0", True), ("9.8.7", False)])
def test_a_uv_on_path_is_used_when_it_is_new_enough(
    project: Project, tmp_path: Path, version: str, is_used: bool
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(FAKE_UV.replace("$VERSION", version))
    (tools / "uv").chmod(0o755)
    code, said = project.bootstrap(path=f"{tools}:/usr/bin:/bin")
    assert code == 0, said
    assert project.uv_calls().startswith(f"{tools}/uv " if is_used else f"{project.root}/.uv/")
    assert bool(project.index.asked) != is_used
