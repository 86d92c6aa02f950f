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
    max_terminals: int = Field(default=500, ge=1, description="Terminals that a replica holds at once.")
    terminal_idle_s: float = Field(
        default=1800.0, gt=0, description="A terminal in which nothing was typed or shown for so long ends."
    )
    terminal_total_s: float = Field(default=8 * 3600.0, gt=0, description="No terminal is open for longer.")
    terminal_detached_s: float = Field(
        default=300.0,
        ge=0,
        description="So long a terminal whose connection was lost waits to be attached to.",
    )
    recording_max_mb: int = Field(
        default=64, ge=1, le=1024, description="Size at which the recording of a terminal ends."
    )
    logs_stored_every_s: float = Field(
        default=10.0, ge=0.2, le=300, description="Seconds that collected lines wait at most to be stored."
    )
    logs_max_collected: int = Field(
        default=2000, ge=1, le=100_000, description="Containers whose logs one replica collects at a time."
    )
