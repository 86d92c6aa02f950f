"""The simulated clusters, all in one process of kubesim, and a way to change what is in them."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx
import yaml
from tests.bench.size import Size


@dataclass(frozen=True)
class Access:
    """How to reach one API server without Kubelore's own client."""

    server: str
    headers: dict[str, str]
    context: ssl.SSLContext

    @classmethod
    def of(cls, kubeconfig: str) -> Access:
        """From a kubeconfig with inline data and one context."""
        parsed = yaml.safe_load(kubeconfig)
        cluster: dict[str, Any] = parsed["clusters"][0]["cluster"]
        user: dict[str, Any] = parsed["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if "client-certificate-data" in user:
            pair = [base64.b64decode(user[f"client-{part}-data"]) for part in ("key", "certificate")]
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                file.write(b"\n".join(pair))
                file.flush()
                context.load_cert_chain(file.name)
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        return cls(cluster["server"], headers, context)


class SimulatedClusters:
    """`with SimulatedClusters(folder, size) as clusters`: they run until the block ends."""

    def __init__(self, folder: Path, size: Size) -> None:
        self._folder = folder
        self._size = size

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "kubelore.kubesim", "--data", str(self._folder)]
        counts = ["--clusters", str(self._size.clusters), "--pods", str(self._size.pods)]
        self._process = subprocess.Popen([*command, *counts], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said.startswith("ready"), f"kubesim said {said!r}"
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """The process that is all of them."""
        return self._process.pid

    @property
    def kubeconfigs(self) -> list[Path]:
        """One file a cluster, in the order of their names."""
        return sorted(self._folder.glob("sim-*.kubeconfig"))

    def change_pods(self, per_second: int) -> None:
        """So many pods of all clusters together get a new revision every second; 0 stops it."""
        each = {"per_second": per_second / self._size.clusters}
        for kubeconfig in self.kubeconfigs:
            path = f"/clusters/{kubeconfig.stem}/changes"
            self._panel.put(path, json=each).raise_for_status()

    def revisions(self) -> int:
        """The resourceVersions of all clusters added up: what it rises by is the number of changes."""
        return sum(int(cluster["resource_version"]) for cluster in self._panel.get("/clusters").json())

    @cached_property
    def _panel(self) -> httpx.Client:
        panel = json.loads((self._folder / "admin.json").read_text())
        headers = {"Authorization": f"Bearer {panel['token']}"}
        return httpx.Client(base_url=panel["url"], headers=headers, timeout=10)
