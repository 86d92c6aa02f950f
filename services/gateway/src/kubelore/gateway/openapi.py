"""Writes the OpenAPI document of the gateway without running one: `python -m kubelore.gateway.openapi`."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic import SecretStr

from kubelore.gateway.service import build_app
from kubelore.gateway.settings import GatewaySettings


def render() -> str:
    """The document as JSON, the same for the same routes."""
    # Routes are described, none is called: nothing of what they would ask is needed.
    absent: Any = None
    settings = GatewaySettings(admin_token=SecretStr("never-used-for-anything"))
    app = build_app(settings, absent, absent, absent, absent)
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
