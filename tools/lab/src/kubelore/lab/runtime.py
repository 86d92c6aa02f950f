"""containerd with folders, a socket, a network and images of its own."""

import json
from pathlib import Path

from kubelore.lab import images
from kubelore.lab.machine import BRIDGE, DATA, FIRST_POD_ADDRESS, POD_SUBNET, RUN, SOCKET
from kubelore.lab.packages import busybox, cni_folder, find_program
from kubelore.lab.process import Program, run_command

_NETWORKS = RUN / "cni"


def containerd_program(log: Path) -> Program:
    """containerd, with its configuration written; the folders exist afterwards."""
    for folder in (RUN, DATA, _NETWORKS):
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    (_NETWORKS / "10-lab.conflist").write_text(json.dumps(_network()))
    config = RUN / "containerd.toml"
    config.write_text(_configuration())
    return Program("containerd", [find_program("containerd"), "--config", str(config)], log)


async def import_images(idle: Path) -> None:
    """Make the lab's images and import them, where the kubelet's runtime looks for them."""
    for image in images.lab_images(busybox(), idle):
        archive = RUN / "image.tar"
        images.write_archive(image, archive)
        await ctr("images", "import", str(archive))
        archive.unlink()


async def remove_containers() -> None:
    """Kill and remove every container, so that shims end by themselves and take their sockets along."""
    tasks = (await ctr("tasks", "list", "--quiet")).split()
    for task in tasks:
        await ctr("tasks", "delete", "--force", task)


async def runtime_answers() -> bool:
    """Whether containerd takes requests."""
    return bool(await ctr("version"))


async def ctr(*arguments: str) -> str:
    """containerd's own client, in the namespace of Kubernetes."""
    return await run_command(
        find_program("ctr"), "--address", str(SOCKET), "--namespace", "k8s.io", *arguments, seconds=30
    )


def _configuration() -> str:
    """Without CAP_SYS_RESOURCE the score can't be lowered, and every sandbox would fail without
    `restrict_oom_score_adj`; network namespaces lie under our state folder, so that a sweep finds them.
    """
    return f"""\
version = 2
root = "{DATA / "containerd"}"
state = "{RUN / "containerd"}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{DATA / "opt"}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_folder()}"
    conf_dir = "{_NETWORKS}"
"""


def _network() -> dict[str, object]:
    """A bridge with addresses from files; nothing is masqueraded, for pods have nowhere else to go."""
    return {
        "cniVersion": "0.4.0",
        "name": "kubelore-lab",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(RUN / "addresses"),
                    "ranges": [[{"subnet": POD_SUBNET, "rangeStart": FIRST_POD_ADDRESS}]],
                },
            }
        ],
    }
