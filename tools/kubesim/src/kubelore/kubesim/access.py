"""Reviews: who am I and what may I. The token may do everything; who is impersonated may only read."""

from __future__ import annotations

from .call import Call
from .status import Json, forbidden

ADMIN = "kubesim-admin"
_READ = ("get", "list", "watch")


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def check(call: Call) -> None:
    """ApiError 403, in the real server's words, for what this user may not do."""
    verb = "create" if call.subresource == "exec" else _VERBS.get(call.request.method, "get")
    if call.user == ADMIN or verb == "get" or call.type.verbs == ("create",):
        return
    resource = f"{call.type.plural}/{call.subresource}" if call.subresource else call.type.plural
    where = f' in the namespace "{call.namespace}"' if call.namespace else " at the cluster scope"
    why = f'User "{call.user}" cannot {verb} resource "{resource}" in API group "{call.type.group}"{where}'
    raise forbidden(call.type.group, call.type.plural, call.name, why)


def review(call: Call, request: Json) -> Json:
    """Answers a SelfSubjectReview, SelfSubjectAccessReview or SelfSubjectRulesReview."""
    answer = {
        "apiVersion": call.type.api_version,
        "kind": call.type.kind,
        "metadata": {"creationTimestamp": None},
    }
    everything = call.user == ADMIN
    match call.type.kind:
        case "SelfSubjectReview":
            groups = ["system:masters", "system:authenticated"] if everything else ["system:authenticated"]
            return {**answer, "status": {"userInfo": {"username": call.user, "groups": groups}}}
        case "SelfSubjectAccessReview":
            spec = request.get("spec") or {}
            asked = spec.get("resourceAttributes") or spec.get("nonResourceAttributes") or {}
            allowed = everything or asked.get("verb") in _READ
            status: Json = {"allowed": allowed} if allowed else {"allowed": False, "reason": "may only read"}
            return {**answer, "spec": spec, "status": status}
        case _:
            verbs = ["*"] if everything else list(_READ)
            rules = [{"verbs": verbs, "apiGroups": ["*"], "resources": ["*"]}]
            urls = [{"verbs": verbs, "nonResourceURLs": ["*"]}]
            status = {"resourceRules": rules, "nonResourceRules": urls, "incomplete": False}
            return {**answer, "spec": request.get("spec") or {}, "status": status}
