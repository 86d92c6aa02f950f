"""Query parameters that several routes take, and how they are read."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

Types = Annotated[
    str,
    Query(
        alias="type",
        max_length=2000,
        description="Types as kubectl names them, comma separated; every type when empty.",
        examples=["pods", "deployments.apps,svc"],
    ),
]
Clusters = Annotated[str, Query(max_length=20_000, description="Names, group:x and tag:y, comma separated.")]
Namespaces = Annotated[
    str, Query(alias="namespace", max_length=5000, description="Comma separated; all when empty.")
]
Labels = Annotated[
    str, Query(max_length=5000, description="A label selector.", examples=["app in (web,api),!canary"])
]
Fields = Annotated[
    str, Query(max_length=2000, description="A field selector.", examples=["status.phase=Running"])
]
Search = Annotated[
    str,
    Query(
        max_length=256, description="Substring of name, labels, annotations and images, whatever its case."
    ),
]
Continue = Annotated[str, Query(alias="continue", max_length=4000)]
"""A token of `Continuation`."""


def comma(text: str) -> list[str]:
    """The parts of a parameter that lists with commas."""
    return [part for raw in text.split(",") if (part := raw.strip())]
