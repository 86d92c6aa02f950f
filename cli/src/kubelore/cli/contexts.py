"""The kubeconfigs on this machine: which contexts they have, and which of these are one cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer


@dataclass(frozen=True)
class Context:
    """One context: its name, the name its cluster would get, and where it leads."""

    name: str
    suggested: str
    server: str
    usable: bool = True
    detail: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Choice:
    """The context by which a cluster is added, and those that lead to the same server."""

    context: Context
    merged: tuple[Context, ...] = ()


def kubeconfig_paths(named: Path | None) -> list[Path]:
    """The files that kubectl would read: the one named, else `$KUBECONFIG`, else ~/.kube/config."""
    if named is not None:
        return [named]
    listed = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return listed or [Path.home() / ".kube" / "config"]


def read_kubeconfigs(named: Path | None) -> str:
    """The kubeconfig of this machine as one text, with the files that it names in their place."""
    from kubelore.common.kube import read_kubeconfig_files

    paths = kubeconfig_paths(named)
    shown = ", ".join(str(path) for path in paths)
    try:
        return read_kubeconfig_files(paths)
    except OSError as error:
        raise typer.BadParameter(f"{error.filename or shown}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{shown}: not a text file") from error


def contexts_of_report(report: dict[str, Any]) -> list[Context]:
    """The contexts of an inspection."""
    return [
        Context(
            name=found["name"],
            suggested=found["suggested_name"],
            server=found["server"],
            usable=found["usable"],
            detail=found["detail"] or "",
            remedy=found["remedy"] or "",
        )
        for found in report["contexts"]
    ]


def contexts_of_text(text: str) -> tuple[list[Context], str | None]:
    """The contexts of a kubeconfig, whatever their users need, and the current one: nothing is sent anywhere."""
    from kubelore.common.kube.cluster_name import suggest_names
    from kubelore.common.kube.documents import load_documents

    documents = load_documents(text)
    config: dict[str, Any] = documents[0] if documents else {}
    servers = {
        entry["name"]: str((entry.get("cluster") or {}).get("server") or "")
        for entry in config.get("clusters") or ()
    }
    entries = [
        (entry["name"], (entry.get("context") or {}).get("cluster")) for entry in config.get("contexts") or ()
    ]
    names = suggest_names([name for name, _ in entries])
    found = [_local(name, names[name], cluster, servers) for name, cluster in entries]
    return found, config.get("current-context") or None


def _local(name: str, suggested: str, cluster: str | None, servers: dict[str, str]) -> Context:
    if server := servers.get(cluster or ""):
        return Context(name, suggested, server)
    return Context(
        name, suggested, "", usable=False, detail=f"it names no cluster that has an address: {cluster}"
    )


def choose(contexts: Sequence[Context], current: str | None, wanted: str | None) -> Context:
    """The context that is wanted, else the current one, else the only one."""
    name = wanted or current or (contexts[0].name if len(contexts) == 1 else None)
    known = ", ".join(context.name for context in contexts)
    if name is None:
        raise typer.BadParameter(f"choose a context with --context: {known}")
    for context in contexts:
        if context.name == name:
            return context
    raise typer.BadParameter(f"no context named {name!r}; there are: {known}")


def one_per_server(contexts: Iterable[Context], current: str | None) -> list[Choice]:
    """One context per server, in their order: the current one where it is among them, else the first."""
    by_server: dict[str, list[Context]] = {}
    for context in contexts:
        by_server.setdefault(_normal(context.server), []).append(context)
    choices: list[Choice] = []
    for group in by_server.values():
        chosen = next((context for context in group if context.name == current), group[0])
        choices.append(Choice(chosen, tuple(context for context in group if context is not chosen)))
    return choices


def _normal(server: str) -> str:
    """Addresses that only look different as one."""
    parts = urlsplit(server)
    try:
        port = parts.port or 443
    except ValueError:
        return server
    return f"{parts.scheme}://{(parts.hostname or '').rstrip('.')}:{port}{parts.path.rstrip('/')}"
