"""How `kubectl get` prints the built-in types: columns and cells as the API server computes them.

Ported from pkg/printers/internalversion of Kubernetes 1.34, and always in its
wide form, as the server does; a column's priority says whether it shows without
`-o wide`. Types that are not here print their name and age.
"""

from kubelore.resource_ops.printers.cluster import CLUSTER
from kubelore.resource_ops.printers.formats import Printer
from kubelore.resource_ops.printers.network import NETWORK
from kubelore.resource_ops.printers.storage import STORAGE
from kubelore.resource_ops.printers.workloads import WORKLOADS

PRINTERS: dict[str, Printer] = {**WORKLOADS, **NETWORK, **STORAGE, **CLUSTER}
"""By type name."""

__all__ = ["PRINTERS", "Printer"]
