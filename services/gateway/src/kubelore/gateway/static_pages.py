"""The two static pages. They hold no data, and run their own script and no other."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

_ELEMENT = r"<{0}>(.*?)</{0}>"


def serve_pages(app: FastAPI) -> None:
    """`/` and `/docs`, each with a Content-Security-Policy made of the hashes of its own script and style."""
    folder = files("kubelore.gateway") / "pages"
    for path, name in (("/", "home.html"), ("/docs", "docs.html")):
        app.add_api_route(
            path, _page((folder / name).read_text("utf-8")), methods=["GET", "HEAD"], include_in_schema=False
        )


def policy_of(page: str) -> str:
    """What a page may do: run the script and take the style that stand in it, and ask its own server."""
    script, style = (_hashes(page, element) for element in ("script", "style"))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(page: str, element: str) -> str:
    found = re.findall(_ELEMENT.format(element), page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


def _page(text: str) -> Callable[[], Awaitable[Response]]:
    headers = {"Content-Security-Policy": policy_of(text)}

    async def page() -> Response:
        return HTMLResponse(text, headers=headers)

    return page
