"""Tells that credentials are about to expire, in time for somebody to renew them.

Once per cluster, credentials (by their end: a generation rises with namespaces
too) and threshold: 30, 7 and 1 days before the end, and at the end. What was
told is kept, so that neither a restart nor another replica tells it again; dying
between telling and keeping repeats one under the same id.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from kubelore.cluster_registry.lifetimes import THRESHOLDS_D, Expiring, Lifetime, due_threshold, iso_utc
from kubelore.cluster_registry.repository import AlertRepository, ClusterRepository
from kubelore.common.bus import Bus
from kubelore.common.contracts.alerts import (
    CREDENTIALS_EXPIRE,
    CloudEvent,
    ExpiryData,
    Severity,
    alert_subject,
    source_of,
)
from kubelore.common.contracts.clusters import SERVICE, ClusterConnection
from kubelore.common.errors import KubeloreError
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)

DAY_S = 86_400.0
_SEVERITIES: dict[int, Severity] = {30: "info", 7: "warning", 1: "critical", 0: "critical"}


class ExpiryWatch:
    """Looks at all clusters when it is told to; `clock` is in seconds since the epoch."""

    def __init__(
        self,
        clusters: ClusterRepository,
        alerts: AlertRepository,
        bus: Bus,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clusters = clusters
        self._alerts = alerts
        self._bus = bus
        self._clock = clock

    async def tell_due(self) -> int:
        """Tell what has to be told by now and was not yet; returns how much that was."""
        now, told = self._clock(), 0
        for cluster, lasting in await self._clusters.expiring(now + max(THRESHOLDS_D) * DAY_S):
            alert = _alert(cluster, lasting, now)
            if alert is None or await self._alerts.told(alert.id):
                continue
            try:
                await self._bus.publish_alert(alert_subject(alert), alert)
            except KubeloreError as error:
                log.warning("alert not published", cluster=cluster.id, detail=error.detail)
                continue
            await self._alerts.remember(alert.id, alert.time)
            log.warning("credentials expire", cluster=cluster.id, at=cluster.credentials_expire_at)
            told += 1
        return told


def _alert(cluster: ClusterConnection, lasting: Lifetime, now: float) -> CloudEvent | None:
    """The alert that is due now, whether it was told or not."""
    if lasting.expires_at is None or lasting.what is None:
        return None
    threshold = due_threshold(lasting.expires_at, now)
    if threshold is None or (threshold and _is_renewed_in_time(cluster, lasting, now)):
        return None
    data = _data(cluster, lasting.what, lasting.expires_at, threshold, now)
    return CloudEvent(
        id=f"{cluster.id}:{cluster.created_at}:{lasting.what}:{lasting.expires_at:.0f}:{threshold}",
        source=source_of(SERVICE),
        type=CREDENTIALS_EXPIRE,
        subject=cluster.id,
        time=iso_utc(now),
        severity=_SEVERITIES[threshold],
        data=msgspec.to_builtins(data),
    )


def _is_renewed_in_time(cluster: ClusterConnection, lasting: Lifetime, now: float) -> bool:
    """A token that renews itself is worth a warning only once half of the time for that has passed in vain."""
    if not cluster.renews_token or lasting.renew_at is None or lasting.expires_at is None:
        return False
    return now < (lasting.renew_at + lasting.expires_at) / 2


def _data(
    cluster: ClusterConnection, what: Expiring, expires_at: float, threshold: int, now: float
) -> ExpiryData:
    days = int((expires_at - now) // DAY_S)
    named = "client certificate" if what == "certificate" else "token"
    when = "has expired" if expires_at <= now else f"expires in {max(days, 1)} day{'s' * (days > 1)}"
    return ExpiryData(
        cluster=cluster.id,
        what=what,
        expires_at=iso_utc(expires_at),
        days_left=days,
        threshold_days=threshold,
        generation=cluster.generation,
        message=f"The {named} by which Kubelore reaches {cluster.id} {when} ({iso_utc(expires_at)}).",
        remedy=f"Renew it, and send the kubeconfig: kubelore clusters rotate {cluster.id}",
    )
