"""Keeping logs, put together: rules, collecting, retention and alerts of one replica."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from kubelore.common.bus import Service
from kubelore.common.contracts import log_policies
from kubelore.container_ops.alerting import Alerting
from kubelore.container_ops.collector import Collector
from kubelore.container_ops.house import House
from kubelore.container_ops.log_alerts import LogAlerts
from kubelore.container_ops.log_policies import LogPolicies
from kubelore.container_ops.log_retention import LogRetention
from kubelore.container_ops.log_rule_repository import LogRuleRepository
from kubelore.container_ops.pod_watch import PodWatch
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.wanted import WantedContainers


class LogKeeping:
    """What of it people ask for, and what runs in the background."""

    def __init__(self, house: House, store: SegmentStore, pods: PodWatch) -> None:
        self._house = house
        self._repository = LogRuleRepository(house.database)
        self._retention = LogRetention(self._repository, store)
        self.policies = LogPolicies(self._repository, self._retention)
        self.alerts = LogAlerts(self._repository)
        self._alerting = Alerting(self._repository, house.bus)
        self._collector = Collector(
            house.leases,
            house.bus.replica,
            house.reach,
            WantedContainers(self._repository, pods),
            self._repository,
            store,
            self._alerting,
            flush_s=house.settings.logs_stored_every_s,
            max_containers=house.settings.logs_max_collected,
        )

    async def prepare(self) -> None:
        """Make the indexes of the database."""
        await self._repository.prepare()

    def serve(self, service: Service) -> None:
        """The endpoints about which logs are kept, and which lines raise an alert."""
        service.serve(log_policies.PUT_LOG_POLICY, self.policies.put)
        service.serve(log_policies.GET_LOG_POLICY, self.policies.get)
        service.serve(log_policies.LIST_LOG_POLICIES, self.policies.list)
        service.serve(log_policies.DROP_LOG_POLICY, self.policies.drop)
        service.serve(log_policies.PUT_LOG_ALERT, self.alerts.put)
        service.serve(log_policies.GET_LOG_ALERT, self.alerts.get)
        service.serve(log_policies.LIST_LOG_ALERTS, self.alerts.list)
        service.serve(log_policies.DROP_LOG_ALERT, self.alerts.drop)

    def loops(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs until cancelled."""
        return self._collector.run(), self._alerting.run(), self._retention.run(self._house.leases)
