"""Drafts: branched off, recorded with their comments, brought up to date, chained and kept apart from main."""

from __future__ import annotations

import asyncio

import pytest

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.branches import (
    ListBranches,
    MakeBranch,
    PutTag,
    Record,
    RemoveBranch,
    RemoveTag,
    UpdateBranch,
)
from kubelore.common.contracts.versions import DiffVersions, GetVersion, ListVersions, VerifyHistory
from kubelore.common.crypto import Signer
from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unsupported,
)
from kubelore.common.store import open_database
from kubelore.yaml_vcs.branches import Drafts
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.normalising import Normaliser
from kubelore.yaml_vcs.repository import resource_key, version_id
from kubelore.yaml_vcs.tags import Tagging

WEB = "prod:configmaps:shop:web"
SIGNER = Signer(bytes(32))
VIEWER = Caller(subject="vera", grants=(Grant(role="viewer"),))
ELSEWHERE = Caller(subject="bob", grants=(Grant(role="admin", namespaces=("other",)),))
TEXT = """\
# The message of the day.
apiVersion: v1
kind: ConfigMap
metadata:
  name: web
  namespace: shop
data:
  a: "9"  # nine, and no more
  b: x
"""


@pytest.fixture
def asking(repository):
    histories = Histories(repository)
    domains = {
        "drafts": Drafts(repository, histories, Normaliser(), SIGNER, clock=lambda: 1_700_000_100.0),
        "histories": histories,
        "tags": Tagging(repository, histories, SIGNER),
    }

    async def ask(method: str, request, caller: Caller = ADMINISTRATOR):
        domain, _, name = method.partition(".")
        with acting_as(caller):
            return await getattr(domains[domain], name)(request)

    return ask


@pytest.fixture
async def two(recorder, changed):
    await recorder.take(
        [changed("created", 1, {"a": "1", "b": "x"}), changed("updated", 2, {"a": "2", "b": "x"})]
    )


async def test_a_version_is_recorded_on_a_draft_and_leaves_main_alone(two, asking) -> None:
    made = await asking("drafts.record", Record(id=WEB, content=TEXT, change_log="try nine"))
    assert (made.branch, made.version, made.happened, made.created_by, made.change_log) == (
        "drafts",
        2,
        "recorded",
        ADMINISTRATOR.subject,
        "try nine",
    )
    assert made.is_current
    main = (await asking("histories.list", ListVersions(id=WEB))).items
    assert [(one.version, one.is_current) for one in main] == [(2, True), (1, False)]
    drafts = (await asking("histories.list", ListVersions(id=WEB, branch="drafts"))).items
    assert [(one.version, one.change_log) for one in drafts] == [
        (2, "try nine"),
        (1, "branched off version 2"),
    ]
    (branch,) = (await asking("drafts.list", ListBranches(id=WEB))).items
    assert (branch.name, branch.base_version, branch.version, branch.behind) == ("drafts", 2, 2, 0)


async def test_a_draft_is_read_with_its_comments_and_compared_without(two, asking) -> None:
    await asking("drafts.record", Record(id=WEB, content=TEXT))
    assert (await asking("histories.get", GetVersion(id=WEB, branch="drafts"))).yaml_content == TEXT
    own = await asking("histories.diff", DiffVersions(id=WEB, branch="drafts"))
    against = await asking("histories.diff", DiffVersions(id=WEB, branch="drafts", against="main"))
    for found in (own, against):
        assert [(one.path, one.old, one.new) for one in found.changes] == [("data.a", "2", "9")]
    assert (against.from_version, against.to_version) == (2, 2)
    assert f"--- {WEB} version 2\n+++ {WEB} version 2 of drafts\n" in against.diff_content
    blame = await asking("histories.blame", GetVersion(id=WEB, branch="drafts"))
    assert {line.text.strip(): line.version for line in blame.lines}['a: "9"'] == 2


async def test_the_chain_of_a_branch_begins_at_the_commit_that_it_was_branched_off(
    two, asking, repository, settings
) -> None:
    await asking("drafts.make", MakeBranch(id=WEB, name="idea", version=1))
    await asking("drafts.record", Record(id=WEB, content=TEXT, branch="idea"))
    (branch,) = (await asking("drafts.list", ListBranches(id=WEB))).items
    assert (
        branch.base_commit
        == (await asking("histories.get", GetVersion(id=WEB, version=1))).version.commit_hash
    )
    assert branch.behind == 1
    verified = await asking("histories.verify", VerifyHistory(id=WEB, branch="idea"))
    assert (verified.ok, verified.versions) == (True, 2)
    async with await open_database(settings) as database:
        await database.collection("versions").update(version_id(resource_key(WEB), 1, 1), {"t": 1})
    assert (await asking("histories.verify", VerifyHistory(id=WEB, branch="idea"))).broken == 1
    assert (await asking("histories.verify", VerifyHistory(id=WEB))).ok


async def test_a_version_of_a_draft_that_is_put_down_to_somebody_else_does_not_verify(
    two, asking, histories, settings
) -> None:
    made = await asking("drafts.record", Record(id=WEB, content=TEXT))
    draft = VerifyHistory(id=WEB, branch=made.branch)
    with acting_as(ADMINISTRATOR):
        assert (await histories.verify(draft)).ok
        async with await open_database(settings) as database:
            place = version_id(resource_key(WEB), 1, made.version) + bytes.fromhex(made.commit_hash)
            await database.collection("version_drafts").update(place, {"by": "eve"})
        assert (await histories.verify(draft)).broken == made.version


async def test_nothing_is_recorded_on_main_by_hand(two, asking) -> None:
    for method, request in (
        ("drafts.record", Record(id=WEB, content=TEXT, branch="main")),
        ("drafts.make", MakeBranch(id=WEB, name="main")),
        ("drafts.remove", RemoveBranch(id=WEB, name="main")),
        ("drafts.update", UpdateBranch(id=WEB, branch="main")),
    ):
        with pytest.raises(BadRequest):
            await asking(method, request)
    assert len((await asking("histories.list", ListVersions(id=WEB))).items) == 2


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("name: web", "name: other"),
        TEXT.replace("namespace: shop", "namespace: bank"),
        TEXT.replace("ConfigMap", "Secret"),
        TEXT.replace("v1", "apps/v1"),
        "data: {}",
    ],
)
async def test_a_draft_is_of_the_very_object(two, asking, text: str) -> None:
    with pytest.raises(Invalid):
        await asking("drafts.record", Record(id=WEB, content=text))


async def test_of_secrets_there_are_no_drafts(recorder, changed, asking) -> None:
    made = changed("created", 1, None, type_name="secrets")
    made.hmacs = {"password": b"a" * 32}
    await recorder.take([made])
    with pytest.raises(Unsupported):
        await asking("drafts.make", MakeBranch(id="prod:secrets:shop:web", name="idea"))


async def test_an_edit_of_what_has_gone_on_is_refused(two, asking) -> None:
    await asking("drafts.record", Record(id=WEB, content=TEXT, after=1))
    with pytest.raises(Conflict, match="is at version 2"):
        await asking("drafts.record", Record(id=WEB, content=TEXT, after=1))


async def test_of_many_at_once_each_has_a_place_or_a_conflict_and_the_chain_holds(two, asking) -> None:
    await asking("drafts.make", MakeBranch(id=WEB, name="busy"))

    async def record(number: int) -> str:
        text = TEXT.replace('"9"', f'"{number}"') + f"# {number}\n"
        try:
            made = await asking("drafts.record", Record(id=WEB, content=text, branch="busy"))
        except Conflict:
            return ""
        got = await asking("histories.get", GetVersion(id=WEB, branch="busy", version=made.version))
        return got.yaml_content if got.yaml_content == text else "another's"

    texts = await asyncio.gather(*(record(number) for number in range(12)))
    assert any(texts)
    assert "another's" not in texts
    found = await asking("histories.verify", VerifyHistory(id=WEB, branch="busy"))
    assert (found.ok, found.versions) == (True, 1 + sum(bool(text) for text in texts))


async def test_a_branch_is_deleted_with_its_versions_unless_one_is_tagged(two, asking) -> None:
    await asking("drafts.record", Record(id=WEB, content=TEXT, branch="idea"))
    with pytest.raises(AlreadyExists):
        await asking("drafts.make", MakeBranch(id=WEB, name="idea"))
    await asking("tags.put", PutTag(id=WEB, name="keep", branch="idea"))
    with pytest.raises(Conflict, match="keep"):
        await asking("drafts.remove", RemoveBranch(id=WEB, name="idea"))
    await asking("tags.remove", RemoveTag(id=WEB, name="keep"))
    assert (await asking("drafts.remove", RemoveBranch(id=WEB, name="idea"))).version == 2
    with pytest.raises(NotFound):
        await asking("histories.list", ListVersions(id=WEB, branch="idea"))
    again = await asking("drafts.make", MakeBranch(id=WEB, name="idea"))
    assert again.version == 1


async def test_a_draft_takes_in_what_the_cluster_became_and_keeps_its_comments(
    two, recorder, changed, asking
) -> None:
    await asking("drafts.record", Record(id=WEB, content=TEXT))
    await recorder.take([changed("updated", 3, {"a": "2", "b": "y", "on": "yes"})])
    done = await asking("drafts.update", UpdateBranch(id=WEB, branch="drafts"))
    assert done.conflicts == []
    assert [one.path for one in done.changes] == ["data.b", "data.on"]
    assert (done.branch.base_version, done.branch.behind, done.branch.version) == (3, 0, 3)
    text = (await asking("histories.get", GetVersion(id=WEB, branch="drafts"))).yaml_content
    assert "# The message of the day.\n" in text
    assert 'a: "9"  # nine, and no more' in text
    against = await asking("histories.diff", DiffVersions(id=WEB, branch="drafts", against="main"))
    assert [(one.path, one.old, one.new) for one in against.changes] == [("data.a", "2", "9")]


async def test_a_conflict_with_the_cluster_leaves_a_draft_as_it_is_until_it_is_resolved(
    two, recorder, changed, asking
) -> None:
    await asking("drafts.record", Record(id=WEB, content=TEXT))
    await recorder.take([changed("updated", 3, {"a": "7", "b": "x"})])
    refused = await asking("drafts.update", UpdateBranch(id=WEB, branch="drafts"))
    (conflict,) = refused.conflicts
    assert (conflict.path, conflict.base, conflict.ours, conflict.theirs) == ("data.a", "2", "7", "9")
    assert (refused.branch.base_version, refused.branch.version) == (2, 2)
    request = UpdateBranch(id=WEB, branch="drafts", resolve={"data.a": "theirs"})
    assert (await asking("drafts.update", request)).branch.base_version == 3
    against = await asking("histories.diff", DiffVersions(id=WEB, branch="drafts", against="main"))
    assert [(one.old, one.new) for one in against.changes] == [("7", "9")]


async def test_a_deleted_object_is_branched_off_as_it_was_before(two, recorder, changed, asking) -> None:
    await recorder.take([changed("deleted", 3, {})])
    with pytest.raises(Conflict):
        await asking("drafts.make", MakeBranch(id=WEB, name="idea"))
    await asking("drafts.make", MakeBranch(id=WEB, name="idea", version=2))
    assert (await asking("drafts.record", Record(id=WEB, content=TEXT, branch="idea"))).version == 2


async def test_who_may_not_change_an_object_makes_no_drafts_of_it(two, asking) -> None:
    await asking("drafts.make", MakeBranch(id=WEB, name="idea"))
    for method, request in (
        ("drafts.make", MakeBranch(id=WEB, name="mine")),
        ("drafts.record", Record(id=WEB, content=TEXT)),
        ("drafts.remove", RemoveBranch(id=WEB, name="idea")),
        ("drafts.update", UpdateBranch(id=WEB, branch="idea")),
    ):
        with pytest.raises(Forbidden):
            await asking(method, request, VIEWER)
        with pytest.raises(NotFound):
            await asking(method, request, ELSEWHERE)
    with pytest.raises(NotFound):
        await asking("drafts.list", ListBranches(id=WEB), ELSEWHERE)
    assert len((await asking("drafts.list", ListBranches(id=WEB), VIEWER)).items) == 1
