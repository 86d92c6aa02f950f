"""Container images made by hand, for no registry is reachable: an OCI layout in a tar, one layer each."""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubelore.lab.packages import find_program

PAUSE = "kubelore.local/pause:1"
BUSYBOX = "kubelore.local/busybox:1"
"""A shell, tar and all of busybox's applets; runs `sleep` for years when not told otherwise."""
DISTROLESS = "kubelore.local/distroless:1"
"""One static program that waits for SIGTERM: no shell, no tar, no /bin."""
GNU = "kubelore.local/gnu:1"
"""bash, coreutils, findutils, tar and gzip of the machine's own Debian, with the libraries they need."""
NOTAR = "kubelore.local/notar:1"
"""The same without tar and gzip; a busybox without tar would find its own built in."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FOREVER = "2147483647"
_FOLDERS = ("tmp", "root", "var", "data", "etc")
_ACCOUNTS = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": b"root:x:0:\nnobody:x:65534:\n",
}
_GNU_PROGRAMS = """
bash env cat head tail tee dd ls stat find xargs sort wc cut tr cp mv rm rmdir mkdir mkfifo mknod mktemp ln
readlink touch truncate sync chmod chown chgrp sha256sum md5sum cksum base64 printf echo seq yes expr sleep
timeout true false test id uname date pwd du df grep sed tar gzip ps stty tty hostname
"""


@dataclass(frozen=True)
class Image:
    """What an image holds: files by path, links by path, folders, and how it runs."""

    name: str
    files: dict[str, bytes]
    entrypoint: list[str]
    links: dict[str, str]
    folders: tuple[str, ...] = ("tmp",)
    path: str = "/bin:/"


def lab_images(busybox: Path, idle: Path) -> list[Image]:
    """The images of a lab node, from a static busybox, the machine's own programs and the lab's own `idle`."""
    waiting = {"idle": idle.read_bytes()}
    return [
        Image(PAUSE, waiting, ["/idle"], {}),
        Image(DISTROLESS, waiting, ["/idle"], {}),
        _busybox_image(busybox),
        gnu_image(GNU),
        gnu_image(NOTAR, without=("tar", "gzip")),
    ]


def write_archive(image: Image, path: Path) -> None:
    """Write the image as an archive that `ctr images import` takes."""
    layer = _layer(image)
    packed = gzip.compress(layer, mtime=0)
    config = _json(_config(image, layer))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
        }
    )
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    entry["annotations"] = {"io.containerd.image.name": image.name}
    index = _json({"schemaVersion": 2, "manifests": [entry]})
    with tarfile.open(path, "w") as archive:
        _add_file(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add_file(archive, "index.json", index)
        for blob in (packed, config, manifest):
            _add_file(archive, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)


def _busybox_image(busybox: Path) -> Image:
    applets = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout
    files = {"bin/busybox": busybox.read_bytes(), **_ACCOUNTS}
    links = {f"bin/{applet}": "busybox" for applet in applets.split() if applet != "busybox"}
    return Image(BUSYBOX, files, ["/bin/sleep", _FOREVER], links, _FOLDERS)


def gnu_image(name: str, without: tuple[str, ...] = ()) -> Image:
    """An image of the machine's own GNU programs. Raises LabUnavailableError where it has none."""
    programs = {one: Path(find_program(one)) for one in _GNU_PROGRAMS.split() if one not in without}
    libraries = {Path(found) for program in programs.values() for found in _libraries(program)}
    files = {f"usr/bin/{one}": path.read_bytes() for one, path in programs.items()}
    files |= {str(path).lstrip("/"): path.read_bytes() for path in libraries}
    links = {"bin/sh": "../usr/bin/bash", "bin/bash": "../usr/bin/bash"}
    return Image(
        name,
        {**files, **_ACCOUNTS},
        ["/usr/bin/sleep", "infinity"],
        links,
        (*_FOLDERS, "bin"),
        "/usr/bin:/bin",
    )


def _libraries(program: Path) -> list[str]:
    """What the loader would load for a program, and the loader itself, by the paths it looks them up by."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(/\S+) \(0x", listed)


def _layer(image: Image) -> bytes:
    folders = {*image.folders, *(str(Path(name).parent) for name in image.files if "/" in name)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        for name, content in image.files.items():
            _add_file(archive, name, content, 0o755)
        for name, target in image.links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
            archive.addfile(entry)
    return buffer.getvalue()


def _config(image: Image, layer: bytes) -> dict[str, Any]:
    return {
        "architecture": _ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Cmd": image.entrypoint, "Env": [f"PATH={image.path}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(blob)}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
