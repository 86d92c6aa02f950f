"""What every part of a replica is built from."""

from __future__ import annotations

from dataclasses import dataclass

from kubelore.common.bus import Bus, Leases
from kubelore.common.crypto import Keyring
from kubelore.common.reach import Reach
from kubelore.common.store import BlobStore, Database
from kubelore.container_ops.exec_policy import ExecPolicies
from kubelore.container_ops.operations import Journal
from kubelore.container_ops.settings import ContainerOpsSettings
from kubelore.container_ops.toolbox import Toolboxes


@dataclass(frozen=True, slots=True)
class House:
    """The bus, the clusters, the stores and the keyring `logs` of one replica.

    `journal` writes down what is done in containers, and `exec_policies` says
    whether it may be. `toolboxes` knows what containers have for their files.
    """

    settings: ContainerOpsSettings
    bus: Bus
    leases: Leases
    reach: Reach
    database: Database
    blobs: BlobStore
    keyring: Keyring
    journal: Journal
    exec_policies: ExecPolicies
    toolboxes: Toolboxes
