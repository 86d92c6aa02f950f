"""A real Kubernetes control plane on this machine: etcd, API server, controller manager and scheduler.

Every control plane has a certificate authority, ports and a data folder of its own, so several run side by
side. It can be hurt the way real ones are: a program killed, paused, restarted, etcd's history compacted.
"""

import asyncio
import base64
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal

import aiohttp

from kubelore.lab import build, components, kubeconfig, recipes
from kubelore.lab.api import Api, ApiError
from kubelore.lab.components import Layout
from kubelore.lab.credentials import write_credentials
from kubelore.lab.kubectl import Kubectl
from kubelore.lab.pki import write_secret
from kubelore.lab.ports import free_ports
from kubelore.lab.process import Program
from kubelore.lab.waiting import wait_for

Component = Literal["etcd", "apiserver", "controller-manager", "scheduler"]
START_ORDER: tuple[Component, ...] = ("etcd", "apiserver", "controller-manager", "scheduler")

_READY_SECONDS = 90
_STOP_SECONDS = 5
_TOKEN_SECONDS = 24 * 3600
NOT_YET = (aiohttp.ClientError, OSError, ApiError)


class ControlPlane:
    """One control plane: `async with ControlPlane(folder) as plane`, or `start()` and `stop()`.

    `folder` must be empty or absent; it holds keys, etcd's data and one log file per program. `name` is the
    cluster's name in kubeconfigs.
    """

    def __init__(self, folder: Path, name: str = "lab") -> None:
        build.ensure(recipes.CONTROL_PLANE)
        self.name = name
        self.folder = folder
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.layout = Layout(folder, *free_ports(3))
        self.authorities = write_credentials(self.layout, name)
        pki = self.layout.pki
        self.api = Api(
            self.server, self.authorities.cluster_certificate, pki / "admin.crt", pki / "admin.key"
        )
        self._etcd = Api(
            self.layout.etcd,
            self.authorities.etcd.identity.certificate,
            pki / "etcd-client.crt",
            pki / "etcd-client.key",
        )
        self._programs = _programs(self.layout)

    async def __aenter__(self) -> "ControlPlane":
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self.layout.server

    def kubeconfig(self, user: str = "kubernetes-admin", groups: Sequence[str] | None = None) -> str:
        """A kubeconfig as YAML text with inline data, by a fresh client certificate.

        The default user is cluster-admin. Any other user is in no group unless given and may do nothing
        until a role binding names them.
        """
        if groups is None:
            groups = ("system:masters",) if user == "kubernetes-admin" else ()
        identity = self.authorities.cluster.client(user, groups)
        return kubeconfig.with_certificate(
            self.name, self.server, self.authorities.cluster_certificate, user, identity
        )

    async def service_account_kubeconfig(
        self, account: str, namespace: str = "default", seconds: int = _TOKEN_SECONDS
    ) -> str:
        """A kubeconfig with a token of a service account, which is made when it isn't there.

        `seconds` is how long the token is good, at least 600 (the API server's rule). It may do nothing until
        a role binding names it.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}"
        metadata = {"name": account, "namespace": namespace}
        await self.api.apply(path, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        answer = await self.api.request("POST", f"{path}/token", review)
        token = answer["status"]["token"]
        return kubeconfig.with_token(
            self.name, self.server, self.authorities.cluster_certificate, account, token
        )

    def kubeconfig_file(self) -> Path:
        """The path of a kubeconfig for cluster-admin (mode 0600)."""
        path = self.folder / "kubeconfig"
        if not path.exists():
            write_secret(path, self.kubeconfig())
        return path

    def kubectl(self) -> Kubectl:
        """kubectl as cluster-admin."""
        return Kubectl(self.kubeconfig_file())

    def pid(self, component: Component) -> int | None:
        """The process id of a running component."""
        return self._programs[component].pid

    async def start(self) -> None:
        """Start everything and wait until the API server is ready and the controllers work.

        Raises LabError with the end of the log of a program that ended; nothing runs then.
        """
        try:
            for component in START_ORDER:
                await self._start(component)
            await self._wait("controller-manager", self._has_default_account)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End everything in order, the API server before its etcd. Data stays in the folder."""
        clients = (self._programs["scheduler"], self._programs["controller-manager"])
        await asyncio.gather(*(program.stop(_STOP_SECONDS) for program in clients))
        await self._programs["apiserver"].stop(_STOP_SECONDS)
        await self._programs["etcd"].stop(_STOP_SECONDS)

    async def kill(self, component: Component) -> None:
        """`kill -9`; returns when the process is gone."""
        await self._programs[component].kill()

    async def restart(self, component: Component) -> None:
        """Start a component again, after ending it if it still runs; returns when it is ready.

        After etcd that includes the API server where it runs, which then must not be paused.
        """
        await self._programs[component].stop(_STOP_SECONDS)
        await self._start(component)

    def pause(self, component: Component) -> None:
        """SIGSTOP: connections stay open and nothing answers, as behind a dead network."""
        self._programs[component].send(signal.SIGSTOP)

    def resume(self, component: Component) -> None:
        """SIGCONT after `pause`."""
        self._programs[component].send(signal.SIGCONT)

    async def compact(self) -> int:
        """Drop all of etcd's history before now; returns the revision that is the oldest one left.

        The API server may still serve older versions from its watch cache: see `expire_history`.
        """
        key = base64.b64encode(b"\0").decode()
        answer = await self._etcd.request("POST", "/v3/kv/range", {"key": key, "count_only": True})
        revision = int(answer["header"]["revision"])
        await self._etcd.request("POST", "/v3/kv/compaction", {"revision": revision, "physical": True})
        return revision

    async def expire_history(self) -> int:
        """Make every resourceVersion older than now answer 410 Gone: compact, then `kill -9` and restart
        the API server, for its watch cache remembers more than etcd does. Returns the oldest revision left.
        """
        revision = await self.compact()
        await self.kill("apiserver")
        await self.restart("apiserver")
        return revision

    async def _start(self, component: Component) -> None:
        self._programs[component].start()
        if component == "etcd":
            await self._wait(component, self._etcd_healthy)
            if self._programs["apiserver"].running:
                await self._wait("apiserver", self._api_ready)
        elif component == "apiserver":
            await self._wait(component, self._api_ready)

    async def _wait(self, component: Component, condition: Callable[[], Awaitable[bool]]) -> None:
        async def asked() -> bool:
            self._programs[component].require_running()
            return await condition()

        what = f"the {component} of {self.name} to be ready"
        await wait_for(asked, what, _READY_SECONDS, ignoring=NOT_YET)

    async def _etcd_healthy(self) -> bool:
        return "true" in str(await self._etcd.request("GET", "/health"))

    async def _api_ready(self) -> bool:
        return await self.api.request("GET", "/readyz") == "ok"

    async def _has_default_account(self) -> bool:
        return bool(await self.api.request("GET", "/api/v1/namespaces/default/serviceaccounts/default"))


def _programs(layout: Layout) -> dict[Component, Program]:
    kubernetes = recipes.KUBERNETES
    commands: dict[Component, tuple[Path, list[str]]] = {
        "etcd": (build.program(recipes.ETCD, "etcd"), components.etcd_flags(layout)),
        "apiserver": (build.program(kubernetes, "kube-apiserver"), components.apiserver_flags(layout)),
        "controller-manager": (
            build.program(kubernetes, "kube-controller-manager"),
            components.controller_manager_flags(layout),
        ),
        "scheduler": (build.program(kubernetes, "kube-scheduler"), components.scheduler_flags(layout)),
    }
    return {
        component: Program(component, [str(path), *flags], layout.log(component))
        for component, (path, flags) in commands.items()
    }
