"""Whose lines a search is about, and which of them its caller may read. Pure."""

from __future__ import annotations

from kubelore.common.authz import Caller
from kubelore.common.contracts.log_search import LogPlaces
from kubelore.common.contracts.logs import LogFilter
from kubelore.common.errors import BadRequest, Forbidden
from kubelore.common.kube.selectors import LabelSelector
from kubelore.container_ops.segment_repository import SegmentScope
from kubelore.container_ops.segments import StreamKey

MAX_CLUSTERS = 200


class Places:
    """Places as one caller may see them. Raises NotFound for a cluster of which the caller sees nothing, BadRequest."""

    def __init__(self, asked: LogPlaces, caller: Caller) -> None:
        if len(asked.clusters) > MAX_CLUSTERS:
            raise BadRequest(f"at most {MAX_CLUSTERS} clusters are searched, not {len(asked.clusters)}")
        self.asked = asked
        self._labels = LabelSelector.parse(asked.labels) if asked.labels else None
        self._namespaces = frozenset(asked.namespaces)
        for cluster in asked.clusters:
            caller.check_cluster(cluster)
        self._granted = {cluster: caller.namespaces(cluster) for cluster in asked.clusters}
        if self._namespaces and not any(
            self.readable(cluster, one) for cluster in asked.clusters for one in asked.namespaces
        ):
            raise Forbidden(f"{caller.subject} may not read in {', '.join(sorted(self._namespaces))[:200]}")

    def readable(self, cluster: str, namespace: str) -> bool:
        """Whether the caller may read pods there."""
        granted = self._granted[cluster]
        return granted.everything or granted.matches(namespace)

    def matches(self, key: StreamKey) -> bool:
        """Whether the lines of a stream are meant, and may be read."""
        asked = self.asked
        return (
            key.cluster in self._granted
            and (not self._namespaces or key.namespace in self._namespaces)
            and asked.pod in ("", key.pod)
            and asked.container in ("", key.container)
            and asked.workload in ("", key.workload)
            and self.readable(key.cluster, key.namespace)
            and (self._labels is None or self._labels.matches(dict(key.labels)))
        )

    def scope(self, wanted: LogFilter) -> SegmentScope:
        """Which segments may hold lines of these places."""
        asked = self.asked
        return SegmentScope(
            since=wanted.since,
            until=wanted.until,
            clusters=asked.clusters,
            namespaces=asked.namespaces,
            pod=asked.pod,
            workload=asked.workload,
        )
