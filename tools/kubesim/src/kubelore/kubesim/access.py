"""Reviews: who am I and what may I. The one user may do everything; an impersonated one may only read."""

from __future__ import annotations

from .call import Call
from .status import Json

ADMIN = "kubesim-admin"
_READ = ("get", "list", "watch")


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
