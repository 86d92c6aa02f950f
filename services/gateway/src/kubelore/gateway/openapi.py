"""Writes the OpenAPI document of the gateway without running one: `python -m kubelore.gateway.openapi`."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from pydantic import SecretStr

from kubelore.gateway.house import House
from kubelore.gateway.service import build_app
from kubelore.gateway.settings import GatewaySettings


def application() -> FastAPI:
    """The gateway's routes, to be described and not to be called: nothing of what they would ask is there."""
    undone: Any = SimpleNamespace(credentials=None, attempts=None, sealer=None, reachable=False)
    settings = GatewaySettings(admin_token=SecretStr("never-used-for-anything"))
    parts: dict[str, Any] = dict.fromkeys(one.name for one in fields(House))
    return build_app(House(**{**parts, "settings": settings, "store": undone}))


def render() -> str:
    """The document as JSON, the same for the same routes."""
    return json.dumps(application().openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
