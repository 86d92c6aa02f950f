"""The table view: the columns of a type, and the cells of its objects, as `kubectl get` shows them.

Built-in types are printed as the API server prints them (`printers`), custom
ones by the additionalPrinterColumns of their definition, which the model holds
like any other object. Everything else, and a mixture of types, shows names and
ages. Cells are JSON values in the order of the columns; kubectl's own NAMESPACE
column is the caller's to add.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

from kubelore.common.contracts.resources import Column
from kubelore.common.durations import human_duration
from kubelore.common.jsonpath import JsonPath
from kubelore.resource_ops.printers import PRINTERS, Printer
from kubelore.resource_ops.printers.formats import Cells, Object, age, columns, name_of, seconds_of, since
from kubelore.resource_ops.read_model import ClusterModel
from kubelore.resource_ops.rows import Row

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_PLAIN = Printer(columns("Name", "Age"), lambda of, now: [name_of(of), age(of, now)])
_MIXED = columns("Type", "Name", "Age")
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Columns:
    """The columns of one answer. With more than one type they are type, name and age."""

    def __init__(self, printer: Printer | None) -> None:
        self._printer = printer
        self.definitions = printer.columns if printer else _MIXED
        self._name_at = next((at for at, column in enumerate(self.definitions) if column.name == "Name"), 0)
        self._age_at = next((at for at, column in enumerate(self.definitions) if column.name == "Age"), None)

    @classmethod
    def of(cls, clusters: Iterable[ClusterModel], types: Collection[str]) -> Columns:
        """The columns for these types; where clusters define a custom type differently, the first one's."""
        if len(types) != 1:
            return cls(None)
        (name,) = types
        return cls(PRINTERS.get(name) or _defined(clusters, name) or _PLAIN)

    def cells(self, row: Row, now: float) -> bytes:
        """A row's cells as a JSON array; `now` is in seconds since the epoch."""
        if self._printer is None:
            return _encode([row.home.type, row.name, _age(row, now)])
        if row.number in row.home.partial:
            return _encode(self._known(row, now))
        try:
            found = _decode(row.home.codec.lean(row.packed))
            if row.hashes is not None:
                # The printer counts the keys; their values are not held.
                found["data"] = row.hashes
            return _encode(self._printer.cells(found, now))
        except (AttributeError, KeyError, TypeError, ValueError):
            # An object in a shape that its type does not allow: say what is certain.
            return _encode(self._known(row, now))

    def _known(self, row: Row, now: float) -> Cells:
        """What is known without the object's body; null stands for the rest."""
        cells: Cells = [None] * len(self.definitions)
        cells[self._name_at] = row.name
        if self._age_at is not None:
            cells[self._age_at] = _age(row, now)
        return cells


def _age(row: Row, now: float) -> str:
    return human_duration(now - row.created) if row.created else "<unknown>"


class _PrinterColumn(msgspec.Struct, rename="camel"):
    name: str
    type: str = "string"
    json_path: str = msgspec.field(name="jsonPath", default="")
    format: str = ""
    priority: int = 0


class _Version(msgspec.Struct, rename="camel"):
    name: str = ""
    additional_printer_columns: list[_PrinterColumn] = []


class _DefinitionSpec(msgspec.Struct):
    versions: list[_Version] = []


class _Definition(msgspec.Struct):
    spec: _DefinitionSpec = msgspec.field(default_factory=_DefinitionSpec)


def _defined(clusters: Iterable[ClusterModel], name: str) -> Printer | None:
    """The printer of a custom type, from the first cluster that defines it."""
    for model in clusters:
        table, served = model.tables.get(DEFINITIONS), model.types.get(name)
        row = table.get("", name) if table else None
        if row is None or served is None:
            continue
        try:
            definition = msgspec.json.decode(row.whole(), type=_Definition)
        except msgspec.ValidationError:
            continue
        for version in definition.spec.versions:
            if version.name == served.version and version.additional_printer_columns:
                return _custom(version.additional_printer_columns)
    return None


def _custom(additional: list[_PrinterColumn]) -> Printer:
    readers = [_reader(column) for column in additional]
    shown = [
        Column(name=column.name, type=column.type, format=column.format, priority=column.priority)
        for column in additional
    ]
    return Printer(
        [*columns("Name"), *shown],
        lambda of, now: [name_of(of), *(reader(of, now) for reader in readers)],
    )


def _reader(column: _PrinterColumn) -> Callable[[Object, float], Any]:
    """Reads one custom cell; null where the path finds nothing, or something of another type."""
    path = JsonPath(column.json_path)

    def read(of: Object, now: float) -> Any:
        found = path.find(of)
        return _cell(column.type, found[0], now) if found else None

    return read


def _cell(kind: str, value: Any, now: float) -> Any:
    match kind, value:
        case ("boolean", bool()):
            return value
        case ("integer", int() | float()) if not isinstance(value, bool):
            return int(value)
        case ("number", int() | float()) if not isinstance(value, bool):
            return float(value)
        case ("date", str()):
            return since(value, now) if not value or seconds_of(value) is not None else "<invalid>"
        case ("string", str()):
            return value
        case ("string", bool()):
            return "true" if value else "false"
        case ("string", None):
            return None
        case ("string", _):
            return _encode(value).decode()
    return None
