"""Whose logs are meant: a workload, a label selector, or pods by name, as what an API server can select pods by."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kubelore.common.errors import BadRequest, UpstreamError
from kubelore.common.kube.resource_type import ResourceType
from kubelore.common.kube.selectors import LabelSelector
from kubelore.common.kube.type_names import one_type
from kubelore.common.reach import Reached

_JOB_OF_CRONJOB = re.compile(r"(.+)-\d{7,10}\Z")
"""A CronJob names its jobs by the minute they were due in."""
_JOB_NAME = "batch.kubernetes.io/job-name"
_SIGNS = {"In": "in", "NotIn": "notin"}


class PodSelection(msgspec.Struct, frozen=True, kw_only=True):
    """Pods of one cluster. What is empty restricts nothing.

    `labels` and `fields` are selectors as kubectl writes them; `owner` is a
    workload (`cronjobs.batch/report`) that the pods must lead back to as well.
    """

    namespaces: tuple[str, ...] = ()
    labels: str = ""
    fields: str = ""
    owner: str = ""

    @classmethod
    def of_pod(cls, namespace: str, pod: str) -> PodSelection:
        """One pod by its name."""
        return cls(namespaces=(namespace,), fields=f"metadata.name={pod}")


class OwnerReference(msgspec.Struct, rename="camel"):
    """What made an object, as its metadata says."""

    kind: str
    name: str
    api_version: str = ""
    controller: bool = False


class _Requirement(msgspec.Struct, frozen=True):
    key: str
    operator: str
    values: list[str] | None = None


class _Selector(msgspec.Struct, rename="camel"):
    match_labels: dict[str, str] | None = None
    match_expressions: list[_Requirement] | None = None


class _Spec(msgspec.Struct):
    selector: dict[str, Any] | None = None


class _Workload(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)


async def select_workload(reached: Reached, namespace: str, workload: str) -> PodSelection:
    """The pods of `deployments.apps/web` in a namespace, written in any form that kubectl takes.

    Raises BadRequest for what is no workload, NotFound where there is none of that name.
    """
    type_name, slash, name = workload.partition("/")
    if not slash or not name:
        raise BadRequest(
            f"{workload[:120]!r} names no workload", remedy="Write deployments.apps/web, or deploy/web."
        )
    resource_type = await reached.find(lambda types: one_type(type_name, types))
    raw = await reached.client.get(resource_type, namespace, name)
    if resource_type.name == "cronjobs.batch":
        return PodSelection(namespaces=(namespace,), labels=_JOB_NAME, owner=f"{resource_type.name}/{name}")
    return PodSelection(namespaces=(namespace,), labels=pod_labels(raw, resource_type, name))


def pod_named(workload: str) -> str:
    """The name in `pods/web-x`; empty for any other workload."""
    type_name, _, name = workload.partition("/")
    return name if type_name.lower() in ("pods", "pod", "po") else ""


def pod_labels(raw: bytes, resource_type: ResourceType, name: str) -> str:
    """The selector of a workload's pods. Raises BadRequest for an object that selects none."""
    try:
        selector = msgspec.json.decode(raw, type=_Workload).spec.selector
        if selector and (text := _selector_text(selector)):
            LabelSelector.parse(text)
            return text
    except msgspec.MsgspecError as error:
        raise UpstreamError(f"{resource_type.name}/{name} has a selector that is none") from error
    raise BadRequest(
        f"{resource_type.name}/{name} selects no pods",
        remedy="Name a workload that has a selector (a deployment, a job, a service), or use a label selector.",
    )


def _selector_text(plain: dict[str, Any]) -> str:
    """A LabelSelector, or the plain map of a Service and a ReplicationController, as text."""
    if plain.keys() <= {"matchLabels", "matchExpressions"}:
        selector = msgspec.convert(plain, _Selector)
        terms = [f"{key}={value}" for key, value in sorted((selector.match_labels or {}).items())]
        return ",".join(terms + [_term(one) for one in selector.match_expressions or ()])
    return ",".join(f"{key}={value}" for key, value in sorted(plain.items()))


def _term(one: _Requirement) -> str:
    if one.operator in _SIGNS:
        return f"{one.key} {_SIGNS[one.operator]} ({','.join(one.values or ())})"
    return one.key if one.operator == "Exists" else f"!{one.key}"


def workload_of(owners: list[OwnerReference], labels: dict[str, str]) -> str:
    """The workload that a pod belongs to (`deployments.apps/web`), read from what the pod says of itself.

    A ReplicaSet's name is its Deployment's with the hash of the template, a
    Job's its CronJob's with a time; nothing is asked. Empty for a pod of its own.
    """
    owner = next((one for one in owners if one.controller), None)
    if owner is None:
        return ""
    kind, name = owner.kind, owner.name
    if kind == "ReplicaSet" and (ending := labels.get("pod-template-hash")) and name.endswith(f"-{ending}"):
        kind, name = "Deployment", name.removesuffix(f"-{ending}")
    elif kind == "Job" and (made := _JOB_OF_CRONJOB.match(name)):
        kind, name = "CronJob", made[1]
    group = owner.api_version.rpartition("/")[0]
    return f"{kind.lower()}s{f'.{group}' if group else ''}/{name}"
