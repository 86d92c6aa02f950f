"""A real node for a control plane: containerd and kubelet on this machine, and metrics-server.

One per machine, for a node has the machine's control groups, mounts and a bridge. It needs root.
"""

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from kubelore.lab import build, machine, recipes, runtime
from kubelore.lab.api import ApiError
from kubelore.lab.cluster import NOT_YET, ControlPlane
from kubelore.lab.errors import LabError
from kubelore.lab.kubelet import kubelet_program
from kubelore.lab.metrics import MetricsServer
from kubelore.lab.packages import ensure_packages
from kubelore.lab.process import Program
from kubelore.lab.waiting import wait_for

NodeComponent = Literal["containerd", "kubelet", "metrics-server"]

_READY_SECONDS = 90
_METRICS_SECONDS = 120
_STOP_SECONDS = 5


def prepare_node() -> None:
    """Install and build what a node needs; blocks for minutes the first time.

    Raises LabUnavailableError where no node can be.
    """
    machine.require_node_machine()
    ensure_packages()
    build.ensure(recipes.NODE)


class Node:
    """The one node of this machine, for a running control plane: `async with Node(plane) as node`.

    Pods use the images `kubelore.lab.images.BUSYBOX` and `DISTROLESS`; none can be pulled. Logs lie beside
    the control plane's.
    """

    def __init__(self, plane: ControlPlane, name: str = "lab-node") -> None:
        prepare_node()
        self.name = name
        self._plane = plane
        self._lock = machine.NodeLock()
        self._programs: dict[NodeComponent, Program] = {}
        self._metrics: MetricsServer | None = None

    async def __aenter__(self) -> "Node":
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything and wait until the node is Ready; metrics follow, see `wait_for_metrics`.

        Raises LabUnavailableError while another run holds the machine's node, LabError when a part fails;
        nothing is left then.
        """
        await self._lock.acquire()
        try:
            await machine.sweep()
            await machine.make_bridge()
            await self._start_runtime()
            await self._forget()
            self._add("kubelet", kubelet_program(self._plane, self.name, self._log("kubelet")))
            await self._wait("kubelet", self._is_ready)
            metrics = MetricsServer(self._plane, self._log("metrics-server"))
            self._metrics = metrics
            self._programs["metrics-server"] = metrics.program
            await metrics.start()
        except BaseException:
            await self.stop()
            raise

    async def wait_for_metrics(self) -> None:
        """Wait until `kubectl top node` has figures, about 30 s after the start."""
        if self._metrics is None:
            raise LabError("the node has not been started")
        await wait_for(
            self._metrics.has_figures, "figures from metrics-server", _METRICS_SECONDS, 0.5, NOT_YET
        )

    async def stop(self) -> None:
        """End every container and program and leave the machine as it was."""
        try:
            for component in ("metrics-server", "kubelet"):
                if component in self._programs:
                    await self._programs[component].stop(_STOP_SECONDS)
            await self._stop_runtime()
            await machine.sweep()
        finally:
            self._programs.clear()
            self._lock.release()

    async def kill(self, component: NodeComponent) -> None:
        """`kill -9`; containers live on."""
        await self._programs[component].kill()

    async def restart(self, component: NodeComponent) -> None:
        """Start a component again, after ending it if it still runs, and wait for the node to be Ready."""
        await self._programs[component].stop(_STOP_SECONDS)
        self._programs[component].start()
        await self._wait(component, self._is_ready)

    def pause(self, component: NodeComponent) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._programs[component].send(signal.SIGSTOP)

    def resume(self, component: NodeComponent) -> None:
        """SIGCONT after `pause`."""
        self._programs[component].send(signal.SIGCONT)

    async def _start_runtime(self) -> None:
        self._add("containerd", runtime.containerd_program(self._log("containerd")))
        await self._wait("containerd", runtime.runtime_answers)
        await runtime.import_images(build.program(recipes.IDLE, "idle"))

    async def _stop_runtime(self) -> None:
        containerd = self._programs.get("containerd")
        if containerd is None:
            return
        containerd.send(signal.SIGCONT)
        if containerd.running:
            # The sweep that follows kills what does not end by itself.
            with suppress(LabError):
                await runtime.remove_containers()
        await containerd.stop(_STOP_SECONDS)

    def _add(self, component: NodeComponent, program: Program) -> None:
        self._programs[component] = program
        program.start()

    def _log(self, component: NodeComponent) -> Path:
        return self._plane.layout.log(component)

    async def _wait(self, component: NodeComponent, condition: Callable[[], Awaitable[bool]]) -> None:
        async def asked() -> bool:
            self._programs[component].require_running()
            return await condition()

        ignoring = (*NOT_YET, LabError) if component == "containerd" else NOT_YET
        await wait_for(asked, f"the {component} of {self.name} to be ready", _READY_SECONDS, 0.2, ignoring)

    async def _forget(self) -> None:
        """Remove the object of an earlier start, which would say Ready before the kubelet does."""
        try:
            await self._plane.api.request("DELETE", f"/api/v1/nodes/{self.name}")
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    async def _is_ready(self) -> bool:
        """Ready and without the taint that keeps pods away from a new node."""
        node = await self._plane.api.request("GET", f"/api/v1/nodes/{self.name}")
        conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")
