"""Manifests on one's own machine, named as kubectl's `-f` names them: files, directories and stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kubelore.cli.connection import Api

_SUFFIXES = (".yaml", ".yml", ".json")

Recursive = Annotated[bool, typer.Option("--recursive", "-R", help="Into directories below, too.")]


def manifest_texts(filenames: Sequence[str], recursive: bool) -> Iterator[str]:
    """The texts of files, in kubectl's order: as named, and of a directory by name. Raises BadParameter."""
    for filename in filenames:
        if filename == "-":
            yield sys.stdin.read()
            continue
        path = Path(filename)
        files = sorted(path.glob("**/*" if recursive else "*")) if path.is_dir() else [path]
        wanted = [one for one in files if one == path or (one.is_file() and one.suffix in _SUFFIXES)]
        if not wanted:
            raise typer.BadParameter(f"there is no {', '.join(_SUFFIXES)} in {filename}")
        for one in wanted:
            try:
                yield one.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise typer.BadParameter(f"{one} cannot be read: {error}") from error


def ids_of(api: Api, texts: Iterable[str], clusters: Sequence[str], namespace: str) -> list[str]:
    """The ids that the objects of manifests have in each cluster, of their namespace or else of this one.

    Raises BadParameter for what names no object of a type that these clusters
    serve, and what `load_documents` does.
    """
    served = api.get("/api/k8s/unified/types", clusters=",".join(clusters))["items"]
    types = {(one["group"], one["kind"]): one for one in served}
    named: list[str] = []
    for manifest in _manifests(texts):
        group, _, _ = str(manifest.get("apiVersion", "")).rpartition("/")
        kind, metadata = manifest.get("kind"), manifest.get("metadata")
        found = types.get((group, str(kind)))
        if found is None or not isinstance(metadata, dict) or not metadata.get("name"):
            raise typer.BadParameter(f"a manifest names no object that is served: {kind} {metadata}"[:300])
        home = (metadata.get("namespace") or namespace) if found["namespaced"] else ""
        named.append(f"{found['name']}:{home}:{metadata['name']}")
    return [f"{cluster}:{one}" for cluster in clusters for one in dict.fromkeys(named)]


def _manifests(texts: Iterable[str]) -> Iterator[dict[str, Any]]:
    from kubelore.common.kube.documents import load_documents

    for text in texts:
        for document in load_documents(text):
            if document.get("kind") == "List":
                yield from (item for item in document.get("items") or () if isinstance(item, dict))
            else:
                yield document
