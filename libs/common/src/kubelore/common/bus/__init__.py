"""Everything Kubelore says over NATS: requests, changes, events, leases, sessions. Nobody else speaks it."""

from kubelore.common.bus.checkpoints import Checkpoint
from kubelore.common.bus.connection import Bus, connect
from kubelore.common.bus.consumer import ChangeConsumer
from kubelore.common.bus.feed import Feed
from kubelore.common.bus.feed_window import FeedReset
from kubelore.common.bus.leases import Holding, Lease, LeaseLost, Leases
from kubelore.common.bus.parked import Parked
from kubelore.common.bus.publisher import ChangePublisher
from kubelore.common.bus.service import Service
from kubelore.common.bus.sessions import Session, SessionEnded
from kubelore.common.bus.streams import StreamLimits, create_durables, ensure_streams, until_prepared
from kubelore.common.bus.wire import NobodyAnswers

__all__ = [
    "Bus",
    "ChangeConsumer",
    "ChangePublisher",
    "Checkpoint",
    "Feed",
    "FeedReset",
    "Holding",
    "Lease",
    "LeaseLost",
    "Leases",
    "NobodyAnswers",
    "Parked",
    "Service",
    "Session",
    "SessionEnded",
    "StreamLimits",
    "connect",
    "create_durables",
    "ensure_streams",
    "until_prepared",
]
