"""Talking to Kubernetes: cleansed kubeconfigs, a client over raw bytes, and the API's small languages.

Layers, lowest first: values (`resource_type`, `access`, `selectors`,
`quantity`, `meta`, `documents`, `differences`) - rules (`addresses`, `credentials`,
`kubeconfig`) - connections (`tls`, `transport`, `errors`) - verbs (`reading`,
`writing`, `containers`, `discovery`, `connection_test`) - `client`. Nothing
else in Kubelore talks to an API server.
"""

from kubelore.common.kube.access import ClusterAccess, ExecCommand
from kubelore.common.kube.addresses import AddressPolicy
from kubelore.common.kube.client import KubeClient
from kubelore.common.kube.credentials import earliest_expiry
from kubelore.common.kube.discovery import Discovery
from kubelore.common.kube.errors import WatchListUnsupported, WatchSilent
from kubelore.common.kube.exec import Channel, ExecStream
from kubelore.common.kube.kubeconfig import inspect_kubeconfig, read_kubeconfig
from kubelore.common.kube.kubeconfig_files import inline_kubeconfig, read_kubeconfig_files
from kubelore.common.kube.listing import ListPage
from kubelore.common.kube.meta import ObjectMeta, OwnerReference, decode_meta, metadata_only
from kubelore.common.kube.resource_type import ResourceType
from kubelore.common.kube.watch import WatchEvent

__all__ = [
    "AddressPolicy",
    "Channel",
    "ClusterAccess",
    "Discovery",
    "ExecCommand",
    "ExecStream",
    "KubeClient",
    "ListPage",
    "ObjectMeta",
    "OwnerReference",
    "ResourceType",
    "WatchEvent",
    "WatchListUnsupported",
    "WatchSilent",
    "decode_meta",
    "earliest_expiry",
    "inline_kubeconfig",
    "inspect_kubeconfig",
    "metadata_only",
    "read_kubeconfig",
    "read_kubeconfig_files",
]
