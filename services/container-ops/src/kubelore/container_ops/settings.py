"""The settings of container-ops alone."""

from __future__ import annotations

from kubelore.common.settings import CommonSettings


class ContainerOpsSettings(CommonSettings):
    """What one replica may take on."""
