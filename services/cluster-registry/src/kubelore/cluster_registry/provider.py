"""Which cloud a cluster runs on, told from its server address, its nodes' provider ids and their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from kubelore.common.contracts.clusters import Provider

_HOST_SUFFIXES: tuple[tuple[str, Provider], ...] = (
    (".eks.amazonaws.com", "aws"),
    (".eks.amazonaws.com.cn", "aws"),
    (".api.aws", "aws"),
    (".myhuaweicloud.com", "huawei"),
    (".aliyuncs.com", "aliyun"),
    (".tencentcloudapi.com", "tencent"),
    (".ccs.tencent-cloud.com", "tencent"),
    (".azmk8s.io", "azure"),
    (".azk8s.cn", "azure"),
    (".aks.containerservice.azure.us", "azure"),
    (".gke.goog", "google"),
)

_PROVIDER_ID_PREFIXES: tuple[tuple[str, Provider], ...] = (
    ("aws://", "aws"),
    ("huaweicloud://", "huawei"),
    ("alicloud://", "aliyun"),
    ("qcloud://", "tencent"),
    ("azure://", "azure"),
    ("gce://", "google"),
)

_NODE_LABEL_PREFIXES: tuple[tuple[str, Provider], ...] = (
    ("eks.amazonaws.com/", "aws"),
    ("cce.cloud.com/", "huawei"),
    ("alibabacloud.com/", "aliyun"),
    ("cloud.tencent.com/", "tencent"),
    ("kubernetes.azure.com/", "azure"),
    ("cloud.google.com/", "google"),
)

_REGION_LABELS = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")


def detect_provider(server: str, nodes: Iterable[tuple[str, Mapping[str, str]]] = ()) -> Provider:
    """Name the provider; `nodes` are (spec.providerID, labels) pairs, `other` when nothing tells.

    The prefixes are those that each cloud's controller manager writes. Nodes
    are believed before the address, which a proxy or a private name hides.
    """
    for provider_id, labels in nodes:
        found = _of_node(provider_id, labels)
        if found is not None:
            return found
    host = urlsplit(server).hostname or ""
    for suffix, provider in _HOST_SUFFIXES:
        if host.endswith(suffix):
            return provider
    return "other"


def detect_region(nodes: Iterable[tuple[str, Mapping[str, str]]]) -> str:
    """The region that the first labelled node stands in, empty when none says."""
    for _, labels in nodes:
        for label in _REGION_LABELS:
            if labels.get(label):
                return labels[label]
    return ""


def _of_node(provider_id: str, labels: Mapping[str, str]) -> Provider | None:
    found = _by_prefix(provider_id, _PROVIDER_ID_PREFIXES)
    if found is not None:
        return found
    for label in labels:
        found = _by_prefix(label, _NODE_LABEL_PREFIXES)
        if found is not None:
            return found
    # Aliyun's controller writes "<region>.<instance>" with no scheme.
    return "aliyun" if ".i-" in provider_id and "://" not in provider_id else None


def _by_prefix(text: str, table: tuple[tuple[str, Provider], ...]) -> Provider | None:
    for prefix, provider in table:
        if text.startswith(prefix):
            return provider
    return None
