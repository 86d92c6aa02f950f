"""Answers out of the read model: a page, one object, several objects, counts.

A query is answered in two steps: bitmaps say which rows match, then as many of
them as the page holds are taken from the sorted order behind `after`. Only
those are decompressed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import msgspec
from pyroaring import BitMap

from kubelore.common.contracts.resources import (
    ClusterState,
    Column,
    Packed,
    PackedRows,
    Page,
    Query,
    SortKey,
    View,
)
from kubelore.common.contracts.resources import Row as Answer
from kubelore.common.errors import BadRequest
from kubelore.common.frames import metadata_only
from kubelore.common.kube.selectors import FieldSelector, LabelSelector
from kubelore.common.kube.type_names import resolve
from kubelore.resource_ops.columns import Columns
from kubelore.resource_ops.filtering import match_fields, match_labels, match_text
from kubelore.resource_ops.index import Index
from kubelore.resource_ops.read_model import ClusterModel, ReadModel
from kubelore.resource_ops.rows import Row
from kubelore.resource_ops.sorting import Key, Sort
from kubelore.resource_ops.visibility import Visible, whole

MAX_LIMIT = 10_000
MAX_SEARCH = 256
StateOf = Callable[[str, frozenset[str]], ClusterState]
"""How far a cluster's rows of these types (empty means all) can be trusted: a new one, `count` is filled in here."""

_SORT_COST = 4
"""Sorting a row costs about as much as looking this many rows of an order up in a bitmap."""


class Selection(msgspec.Struct):
    """What a query selects: the rows by number, and the clusters and types that were asked."""

    clusters: list[ClusterModel]
    types: frozenset[str]
    rows: BitMap


def query(
    models: ReadModel, asked: Query, state_of: StateOf, *, visible: Visible = whole, now: float | None = None
) -> Page:
    """The page that was asked for, over the clusters that are held here; others are left out.

    Rows that are not `visible` are neither shown nor counted. `now` (seconds
    since the epoch) is what ages in the table view are counted from. Raises
    BadRequest for anything that cannot be understood.
    """
    sort = Sort(asked.sort)
    after = sort.check(asked.after)
    if not 0 <= asked.limit <= MAX_LIMIT:
        raise BadRequest(
            f"limit {asked.limit} is not between 0 and {MAX_LIMIT}", remedy="Use continue for more."
        )
    selection, states = select(models, asked, state_of, visible)
    rows = _take(models.index, selection, sort, after, asked.limit)
    total = len(selection.rows)
    if asked.packed and asked.objects and asked.view != "table":
        last: SortKey | None = [*sort.key_of(rows[-1])] if rows else None
        objects = pack(rows, asked.view)
        packed = PackedRows(ids=[row.id for row in rows], objects=objects, last=last)
        return Page(rows=[], clusters=states, total=total, packed=packed)
    columns = Columns.of(selection.clusters, selection.types) if asked.view == "table" else None
    if asked.objects:
        objects = render(rows, asked.view, columns, time.time() if now is None else now)
    else:
        objects = (b"" for _ in rows)
    return Page(
        rows=[Answer(list(sort.key_of(row)), row.id, body) for row, body in zip(rows, objects, strict=True)],
        clusters=states,
        total=total,
        columns=columns.definitions if columns else [],
    )


def page_rows(models: ReadModel, asked: Query, state_of: StateOf, visible: Visible = whole) -> list[Row]:
    """The rows of the page that was asked for. Raises as `query`."""
    sort = Sort(asked.sort)
    selection, _ = select(models, asked, state_of, visible)
    return _take(models.index, selection, sort, sort.check(asked.after), min(asked.limit, MAX_LIMIT))


def held_rows(models: ReadModel, ids: Iterable[str | None]) -> list[Row]:
    """The rows of these ids that are held."""
    return [row for row in _held(models, ids) if row is not None]


def select(
    models: ReadModel, asked: Query, state_of: StateOf, visible: Visible = whole
) -> tuple[Selection, list[ClusterState]]:
    """Which rows match, and the state of each cluster with its count."""
    index = models.index
    clusters = [models.clusters[name] for name in dict.fromkeys(asked.clusters) if name in models.clusters]
    types = models.meant(asked.types, clusters)
    labels, fields = LabelSelector.parse(asked.labels), FieldSelector.parse(asked.fields)
    if len(asked.search) > MAX_SEARCH:
        raise BadRequest(f"the search text is longer than {MAX_SEARCH} characters")
    states = [state_of(model.cluster, types) for model in clusters]
    trusted = [
        model
        for model, state in zip(clusters, states, strict=True)
        if state.status == "live" or not asked.exclude_stale
    ]
    rows = index.types.union(types if asked.types else [name for name, _ in index.types.items()])
    # Where that is not all there is; bringing the rows of many clusters together takes longer than the rest.
    if visible is not whole or len(trusted) < len(models.clusters):
        rows &= BitMap.union(BitMap(), *(visible(model) for model in trusted))
    if asked.namespaces:
        unscoped = _cluster_scoped(clusters, types)
        rows &= index.namespaces.union(asked.namespaces) | index.types.union(unscoped)
    rows = match_labels(index, rows, labels)
    all_types = types or frozenset(name for model in clusters for name in model.types)
    rows = match_fields(index, rows, all_types, fields)
    rows = match_text(index, rows, asked.search)
    for model, state in zip(clusters, states, strict=True):
        state.count = rows.intersection_cardinality(model.numbers)
    return Selection(clusters, types, rows), states


def _cluster_scoped(clusters: Iterable[ClusterModel], asked: frozenset[str]) -> set[str]:
    """Types asked for by name that are in no namespace: kubectl lists them whole, whatever `-n` says."""
    return {
        name for model in clusters for name in asked & model.types.keys() if not model.types[name].namespaced
    }


def _take(index: Index, selection: Selection, sort: Sort, after: Key | None, limit: int) -> list[Row]:
    """The first rows behind a key: sorted on the spot when few match, else picked from the kept orders."""
    matching = selection.rows
    possible = selection.types or [name for name, _ in index.types.items()]
    held = [name for name in possible if matching.intersect(index.types.get(name))]
    if not held or not limit:
        return []
    known = sum(len(index.types.get(name)) for name in held)
    steps = known * min(limit, len(matching)) // len(matching)
    if len(matching) * _SORT_COST < steps:
        return sort.first(index.held(matching), after, limit)
    orders = [index.order(name, sort.column) for name in held]
    picked = [order.pick(matching, after, limit, descending=sort.descending) for order in orders]
    if len(picked) == 1:
        return picked[0]
    return sorted(chain.from_iterable(picked), key=sort.key_of, reverse=sort.descending)[:limit]


def render(rows: Iterable[Row], view: View, columns: Columns | None, now: float) -> Iterator[bytes]:
    """Each row in a view, as raw JSON; the table view is an array of the row's cells."""
    if view == "object":
        return (row.whole() for row in rows)
    if view == "metadata":
        return (row.home.codec.partial(row.packed) for row in rows)
    if columns is None:
        raise ValueError("the table view needs columns")
    return (columns.cells(row, now) for row in rows)


def pack(rows: Iterable[Row | None], view: View) -> Packed:
    """Rows as they lie, without unpacking anything; nothing for a row that is not held."""
    frames: list[bytes] = []
    uses: list[int] = []
    places: dict[str, int] = {}
    for row in rows:
        if row is None:
            frames.append(b"")
            uses.append(places.setdefault("", len(places)))
            continue
        packed = row.packed
        frames.append(packed if view == "object" else metadata_only(packed))
        uses.append(places.setdefault(row.home.codec.fingerprint(packed), len(places)))
    lengths = list(map(len, frames))
    return Packed(frames=b"".join(frames), lengths=lengths, uses=uses, dictionaries=list(places))


def get(models: ReadModel, id: str, view: View = "object", *, now: float | None = None) -> bytes:
    """One object in a view; empty bytes when it is not held. Raises BadRequest when the id is none."""
    return fetch(models, [id], view, now=now)[0]


def fetch(
    models: ReadModel, ids: Iterable[str | None], view: View = "object", *, now: float | None = None
) -> list[bytes]:
    """Objects by id, in that order; empty bytes where one has gone meanwhile, or there is no id."""
    moment = time.time() if now is None else now
    columns: dict[str, Columns] = {}
    found: list[bytes] = []
    for row in _held(models, ids):
        if row is None:
            found.append(b"")
            continue
        name = row.home.type
        if view == "table" and name not in columns:
            columns[name] = Columns.of([models.clusters[row.home.cluster]], {name})
        found.extend(render((row,), view, columns.get(name), moment))
    return found


def fetch_packed(models: ReadModel, ids: Iterable[str | None], view: View) -> Packed:
    """As `fetch`, but packed."""
    return pack(_held(models, ids), view)


def _held(models: ReadModel, ids: Iterable[str | None]) -> Iterator[Row | None]:
    """The row of each id, None where it is not held."""
    return (models.get(one) if one is not None else None for one in ids)


def columns_of(models: ReadModel, clusters: Iterable[str], types: Iterable[str]) -> list[Column]:
    """The columns of the table view over these types, as a query would give them."""
    asked = [models.clusters[name] for name in clusters if name in models.clusters]
    return Columns.of(asked, resolve(types, [model.types for model in asked])).definitions
