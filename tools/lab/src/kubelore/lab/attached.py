"""The lab that `python -m kubelore.lab up` runs, for tests that only use it: several runs share its one node.

With KUBELORE_LAB_ATTACH=1 the fixture `lab_node` is this. It can be asked and
not be hurt: what kills or pauses a part needs a lab of its own.
"""

import base64
from pathlib import Path

import yaml

from kubelore.lab.api import Api
from kubelore.lab.errors import LabUnavailableError
from kubelore.lab.kubectl import Kubectl

VARIABLE = "KUBELORE_LAB_ATTACH"


class AttachedPlane:
    """The control plane of a lab that somebody else started, as cluster-admin."""

    def __init__(self, kubeconfig: Path) -> None:
        self._file = kubeconfig
        cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]
        self.name = cluster["name"]
        self.server = cluster["cluster"]["server"]
        authority = base64.b64decode(cluster["cluster"]["certificate-authority-data"])
        pki = kubeconfig.parent / "pki"
        self.api = Api(self.server, authority, pki / "admin.crt", pki / "admin.key")

    def kubeconfig(self) -> str:
        """A kubeconfig as YAML text with inline data."""
        return self._file.read_text()

    def kubeconfig_file(self) -> Path:
        """The path of a kubeconfig for cluster-admin."""
        return self._file

    def kubectl(self) -> Kubectl:
        """kubectl as cluster-admin."""
        return Kubectl(self._file)


class AttachedNode:
    """Its node, which was started long ago."""

    def __getattr__(self, name: str) -> None:
        raise LabUnavailableError(f"`{name}` needs a lab of the test's own: unset {VARIABLE}")

    async def wait_for_metrics(self) -> None:
        """Nothing: figures are there half a minute after a start."""
