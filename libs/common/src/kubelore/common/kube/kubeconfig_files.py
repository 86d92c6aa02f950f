"""Kubeconfig files, read as kubectl reads them: for the CLI, on the user's own machine, never on a server.

Several files become one, and the files that they name are put in their place.
"""

from __future__ import annotations

import base64
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kubelore.common.errors import KubeconfigRefused, KubeloreError
from kubelore.common.kube.documents import dump, load_documents

MAX_FILE_BYTES = 512 * 1024
_CLUSTER_FILES = (("certificate-authority", "certificate-authority-data"),)
_USER_FILES = (("client-certificate", "client-certificate-data"), ("client-key", "client-key-data"))


def read_kubeconfig_files(paths: Sequence[Path]) -> str:
    """Several kubeconfig files as one, with every named file's content in its place.

    kubectl's rules for `$KUBECONFIG`: of clusters, users and contexts of one name
    the first wins, as does the first current context; a file that is not there
    counts for nothing, unless none is. Raises KubeconfigRefused, and OSError and
    UnicodeDecodeError for a file that cannot be read.
    """
    texts = [(path, path.read_text()) for path in paths if path.exists() or path == paths[-1] == paths[0]]
    if not texts:
        raise FileNotFoundError(errno.ENOENT, "no such file", ", ".join(str(path) for path in paths))
    if len(texts) == 1:
        ((path, text),) = texts
        return inline_kubeconfig(text, path.parent)
    merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config"}
    found: dict[str, dict[str, Any]] = {"clusters": {}, "users": {}, "contexts": {}}
    for path, text in texts:
        config = _document(inline_kubeconfig(text, path.parent))
        for plural, entries in found.items():
            for entry in config.get(plural) or ():
                entries.setdefault(str(entry.get("name")) if isinstance(entry, dict) else "", entry)
        if config.get("current-context"):
            merged.setdefault("current-context", config["current-context"])
    return dump(merged | {plural: list(entries.values()) for plural, entries in found.items()})


def inline_kubeconfig(text: str, base_dir: Path) -> str:
    """The same kubeconfig with every named file's content in its place.

    Relative paths start at `base_dir`, the folder of the kubeconfig, as kubectl
    reads them. A file's content wins over data that stands beside it, for a
    token as well, which is kubectl's rule. Raises KubeconfigRefused
    (`invalid-yaml`, `file-path` for a file that cannot be read).
    """
    config = _document(text)
    for cluster in _sections(config, "clusters", "cluster"):
        _inline(cluster, _CLUSTER_FILES, base_dir)
    for user in _sections(config, "users", "user"):
        _inline(user, _USER_FILES, base_dir)
        if user.get("tokenFile"):
            token = _read(user.pop("tokenFile"), base_dir, "tokenFile")
            user["token"] = token.decode(errors="replace").strip()
    return dump(config)


def _document(text: str) -> dict[str, Any]:
    try:
        documents = load_documents(text)
    except KubeloreError as error:
        raise KubeconfigRefused(
            f"the text is no readable kubeconfig: {error.detail}",
            code="invalid-yaml",
            remedy="check it with `kubectl config view`",
        ) from error
    return documents[0] if documents else {}


def _sections(config: dict[str, Any], plural: str, singular: str) -> list[dict[str, Any]]:
    entries = config.get(plural)
    found = [entry.get(singular) for entry in entries or () if isinstance(entry, dict)]
    return [section for section in found if isinstance(section, dict)]


def _inline(section: dict[str, Any], files: tuple[tuple[str, str], ...], base_dir: Path) -> None:
    for field, inlined in files:
        if section.get(field):
            section[inlined] = base64.b64encode(_read(section.pop(field), base_dir, field)).decode()


def _read(path: object, base_dir: Path, field: str) -> bytes:
    file = base_dir / Path(str(path)).expanduser()
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unusable(field, file, error.strerror or "it cannot be read") from error
    if len(content) > MAX_FILE_BYTES:
        raise _unusable(field, file, f"it is larger than {MAX_FILE_BYTES} bytes")
    return content


def _unusable(field: str, file: Path, why: str) -> KubeconfigRefused:
    return KubeconfigRefused(
        f"{field} names {file}: {why}", code="file-path", remedy="correct the path in the kubeconfig"
    )
