"""What of the read model is the same in several clusters: a digest for each object, name by name.

A digest is made when somebody first compares the object, and kept beside its
row until it changes. Names come in the order of type, namespace and name, a
page at a time, so that replicas' pages can be merged as they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

import msgspec
from pyroaring import BitMap

from kubelore.common.contracts.resources import Digest, DigestPage, Digests, FetchMeant, ListDigests, Query
from kubelore.common.errors import BadRequest
from kubelore.common.kube.noise import digest, meant, parse_paths
from kubelore.resource_ops.query import StateOf, select
from kubelore.resource_ops.read_model import ReadModel
from kubelore.resource_ops.rows import Row, Table
from kubelore.resource_ops.visibility import Visible, whole

MAX_NAMES = 2000
MAX_DIGESTS = 20_000
"""Digests in one page, whatever its names: at most one name more."""
BREATH = 25
"""Objects hashed (0.1 ms each) or rendered after which others of this process get their turn."""
MAX_NEW = 5_000
"""Digests made for one page; those behind them come with the next."""

Name = tuple[str, str, str]
"""Type, namespace and name."""
Held = list[tuple[int, Row]]
"""Rows by their cluster's place in the request."""
_encode = msgspec.json.Encoder().encode


async def digests(
    models: ReadModel, asked: ListDigests, state_of: StateOf, *, visible: Visible = whole
) -> DigestPage:
    """A page of names and digests, over the clusters that are held here; others are left out.

    Rows that are not `visible` are not there. Raises BadRequest for anything
    that cannot be understood.
    """
    if not 0 < asked.limit <= MAX_NAMES:
        raise BadRequest(f"limit {asked.limit} is not between 1 and {MAX_NAMES}")
    if not asked.types:
        raise BadRequest("nothing says which types to compare")
    query = Query(
        clusters=asked.clusters, types=asked.types, namespaces=asked.namespaces, labels=asked.labels
    )
    selection, states = select(models, query, state_of, visible)
    page = DigestPage(rows=[], clusters=states, types=sorted(selection.types))
    # All rows are found before anything waits: a row's number may be another's by then.
    found, page.next = _page(models, asked, page.types, selection.rows)
    made = 0
    for name, held in found:
        for _, row in held:
            if not row.digest and row.number not in row.home.partial:
                row.digest = digest(row.home.type, row.lean(), row.hashes)
                made += 1
                if made % BREATH == 0:
                    await asyncio.sleep(0)
        page.rows.append(Digests(*name, [Digest(place, row.digest) for place, row in held]))
    return page


def _page(
    models: ReadModel, asked: ListDigests, types: Iterable[str], rows: BitMap
) -> tuple[list[tuple[Name, Held]], Name | None]:
    """The next names with their rows, and the last of them when there are more."""
    places = [place for place, name in enumerate(asked.clusters) if name in models.clusters]
    found: list[tuple[Name, Held]] = []
    counted = new = 0
    for name in _names(models, asked, places, types):
        held = list(_held(models, asked.clusters, places, name, rows))
        if not held:
            continue
        if len(found) == asked.limit or counted >= MAX_DIGESTS or new >= MAX_NEW:
            return found, found[-1][0]
        found.append((name, held))
        counted += len(held)
        new += sum(not row.digest for _, row in held)
    return found, None


async def as_meant(
    models: ReadModel, asked: FetchMeant, may_read: Callable[[str], bool] = lambda _: True
) -> list[bytes]:
    """Objects as they are compared, in the order of their ids; empty bytes where one has gone or is not for the caller."""
    ignore = parse_paths(asked.ignore)
    found: list[bytes] = []
    for number, id in enumerate(asked.ids, 1):  # noqa: A001
        row = models.get(id)
        if row is None or not may_read(id) or row.number in row.home.partial:
            found.append(b"")
            continue
        found.append(_encode(meant(row.home.type, row.lean(), ignore=ignore, hashes=row.hashes)))
        if number % BREATH == 0:
            await asyncio.sleep(0)
    return found


def _names(
    models: ReadModel, asked: ListDigests, places: Iterable[int], types: Iterable[str]
) -> Iterator[Name]:
    """Every name that any of the clusters has, in order, behind `after`. What comes meanwhile may be left out."""
    after = asked.after or ("", "", "")
    held = [models.clusters[asked.clusters[place]].tables for place in places]
    for type_name in types:
        if type_name < after[0]:
            continue
        tables = [tables[type_name] for tables in held if type_name in tables]
        for namespace in sorted({home for table in tables for home in table.names}):
            if (type_name, namespace) >= after[:2]:
                yield from (
                    name
                    for name in _in_namespace(tables, type_name, namespace, asked.name)
                    if asked.after is None or name > after
                )


def _in_namespace(tables: list[Table], type_name: str, namespace: str, only: str) -> list[Name]:
    names = set[str]()
    for table in tables:
        names.update(table.names.get(namespace, ()))
    if only:
        names &= {only}
    return [(type_name, namespace, name) for name in sorted(names)]


def _held(
    models: ReadModel, clusters: list[str], places: Iterable[int], name: Name, rows: BitMap
) -> Iterator[tuple[int, Row]]:
    for place in places:
        model = models.clusters.get(clusters[place])
        table = model.tables.get(name[0]) if model else None
        row = table.get(name[1], name[2]) if table else None
        if row is not None and row.number in rows:
            yield place, row
