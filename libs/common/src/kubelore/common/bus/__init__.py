"""Everything Kubelore says over NATS: requests, changes, events, leases, sessions. Nobody else speaks it."""

from kubelore.common.bus.connection import Bus, connect
from kubelore.common.bus.leases import Lease, LeaseLost, Leases
from kubelore.common.bus.publisher import ChangePublisher
from kubelore.common.bus.service import Service
from kubelore.common.bus.sessions import Session, SessionEnded
from kubelore.common.bus.streams import StreamLimits, create_durables, ensure_streams

__all__ = [
    "Bus",
    "ChangePublisher",
    "Lease",
    "LeaseLost",
    "Leases",
    "Service",
    "Session",
    "SessionEnded",
    "StreamLimits",
    "connect",
    "create_durables",
    "ensure_streams",
]
