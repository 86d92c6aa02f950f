"""The settings of container-ops alone."""

from __future__ import annotations

from pydantic import Field

from kubelore.common.settings import CommonSettings


class ContainerOpsSettings(CommonSettings):
    """What one replica may take on."""

    operations_kept_days: int = Field(
        default=90, ge=1, le=3650, description="Days for which what was done in containers is kept."
    )
    debug_image: str = Field(
        default="busybox:1.37",
        description="Image of the ephemeral container that is added, when asked for, to look into one without a shell.",
    )
