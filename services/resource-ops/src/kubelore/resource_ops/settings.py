"""The settings of resource-ops alone."""

from __future__ import annotations

from pydantic import Field

from kubelore.common.settings import CommonSettings


class ResourceOpsSettings(CommonSettings):
    """How much one replica may hold and watch."""

    memory_budget_bytes: int = Field(
        default=1024**3,
        ge=0,
        description="Bytes that the read model of one replica may take, by its own estimate; 0 for any.",
    )
    watch_budget: int = Field(
        default=4000, ge=0, description="Watches that one replica keeps open; 0 for any number."
    )
