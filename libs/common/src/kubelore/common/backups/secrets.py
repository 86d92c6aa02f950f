"""The values of a Secret in a backup: opened only where somebody may see or write them."""

from __future__ import annotations

import base64

import msgspec

from kubelore.common.backups.faults import RecordDamaged
from kubelore.common.backups.records import Record
from kubelore.common.crypto import Keyring
from kubelore.common.kube.secrets import secret_context


def with_values(record: Record, keyring: Keyring) -> bytes:
    """The object's JSON, a Secret's values among it; any other object as it is.

    `keyring` is the one whose recipient the values were sealed to (`versions`).
    Raises IntegrityError where the values do not open, RecordDamaged.
    """
    if not record.sealed:
        return record.object
    opened = keyring.open_box(record.sealed, context=secret_context(record.cluster, record.uid, record.rv))
    try:
        values = msgspec.msgpack.decode(opened, type=dict[str, bytes])
        fields = msgspec.json.decode(record.object, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise RecordDamaged(f"The values of {record!r} cannot be read.") from error
    data = {key: base64.b64encode(value).decode() for key, value in values.items()}
    fields["data"] = msgspec.Raw(msgspec.json.encode(data))
    return msgspec.json.encode(fields)
