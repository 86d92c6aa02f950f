"""What resource-ops hands out for a backup: the objects of one type as the API server holds them, page by page.

Asked of the API server itself and not of the read model, so that a type's pages
are one consistent state of it, at one resourceVersion. Any replica answers.
"""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.resources import SERVICE

MAX_LIMIT = 2000
MAX_PAGE_BYTES = 32 * 1024 * 1024
"""Of one page as the API server sends it; where objects are large, a page has fewer than were asked for."""


class Export(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One page of the objects of a type in a cluster.

    `type` is canonical (`deployments.apps`). `namespace` empty means all of
    them, `labels` is a Kubernetes selector. `continue_token` is the `next` of
    the page before; Gone (reason `Expired`) when the API server no longer has
    that state: begin the type again. With `secrets` the values of Secrets come
    along, sealed, for which the caller needs the right `secrets` there.
    """

    cluster: str
    type: str
    namespace: str = ""
    labels: str = ""
    limit: int = 500
    continue_token: str = ""
    secrets: bool = False


class Exported(msgspec.Struct, array_like=True):
    """One object: the API server's own JSON, Secrets without their values.

    Of Secrets, `hmacs` and `sealed` (bound to cluster, uid and rv, openable with
    the keyring `versions`) are as in a `Change`.
    """

    id: str
    uid: str
    rv: str
    object: bytes
    sealed: bytes = b""
    hmacs: dict[str, bytes] | None = None


class ExportPage(msgspec.Struct, kw_only=True):
    """Those of a page that the caller may read, in the API server's order.

    `next` is empty on the last page. `rv` is the resourceVersion of the list,
    the same on each of its pages. `api_version` and `kind` are those of the type.
    """

    items: list[Exported]
    next: str = ""
    rv: str = ""
    api_version: str = ""
    kind: str = ""


EXPORT = Endpoint(SERVICE, "export", Export, ExportPage, deadline_s=60.0, callers=("yaml-vcs",))

ENDPOINTS = (EXPORT,)
