"""Container ids in paths: `{id:container}` takes what has colons, so that `operations` and `batch` are none."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from starlette.convertors import StringConvertor, register_url_convertor

CONTAINER_ID = r"[-a-z0-9]+:[-a-z0-9]+:[-.a-z0-9]+(?::[-a-z0-9]*)?"

ContainerPath = Annotated[
    str,
    Path(
        alias="id",
        pattern=f"^{CONTAINER_ID}$",
        max_length=512,
        description="cluster:namespace:pod:container. Without a container it is the pod's default.",
        examples=["prod-eu:shop:web-5d9c7b9f6d-x2x7k:web"],
    ),
]


class _ContainerIds(StringConvertor):
    regex = CONTAINER_ID


register_url_convertor("container", _ContainerIds())
