"""Tags: names for versions, unique per object, signed, and found again."""

from __future__ import annotations

import pytest

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.branches import ListTags, PutTag, RemoveTag, TagSnapshot
from kubelore.common.contracts.versions import GetVersion, ListVersions
from kubelore.common.crypto import Signer
from kubelore.common.errors import AlreadyExists, Forbidden, Invalid, NotFound, TooLarge
from kubelore.yaml_vcs.history import MAIN
from kubelore.yaml_vcs.repository import resource_key
from kubelore.yaml_vcs.tags import Tagging, tag_bytes

WEB = "prod:configmaps:shop:web"
START = 1_700_000_000.0
SIGNER = Signer(bytes(32))
VIEWER = Caller(subject="vera", grants=(Grant(role="viewer"),))
ELSEWHERE = Caller(subject="bob", grants=(Grant(role="admin", namespaces=("other",)),))


@pytest.fixture
def asking(repository, histories):
    tagging = Tagging(repository, histories, SIGNER, clock=lambda: START)

    async def ask(method: str, request, caller: Caller = ADMINISTRATOR):
        with acting_as(caller):
            domain = histories if isinstance(request, ListVersions | GetVersion) else tagging
            return await getattr(domain, method)(request)

    return ask


@pytest.fixture
async def three(recorder, changed):
    await recorder.take([changed("created", 1, {"a": "1"}), changed("updated", 2, {"a": "2"})])
    await recorder.take([changed("updated", 3, {"a": "3"})])


async def test_a_tag_is_shown_with_its_version_and_finds_it(three, asking) -> None:
    tag = await asking("put", PutTag(id=WEB, name="v1.0", version=2, note="as sold"))
    assert (tag.version, tag.branch, tag.created_by, tag.created_at) == (
        2,
        "main",
        ADMINISTRATOR.subject,
        "2023-11-14T22:13:20.000Z",
    )
    page = await asking("list", ListVersions(id=WEB))
    assert [one.tags for one in page.items] == [[], ["v1.0"], []]
    assert [one.version for one in (await asking("list", ListVersions(id=WEB, tag="v1.0"))).items] == [2]
    assert (await asking("list", ListVersions(id=WEB, tag="v2"))).items == []
    assert (await asking("list", ListVersions(id=WEB, tag="v1.0", actor="helm"))).items == []
    assert (await asking("list", ListTags(id=WEB))).items == [tag]


async def test_a_name_is_there_once_and_moves_only_when_told(three, asking) -> None:
    await asking("put", PutTag(id=WEB, name="good", version=1))
    await asking("put", PutTag(id=WEB, name="good", version=1, note="again"))
    with pytest.raises(AlreadyExists, match="version 1"):
        await asking("put", PutTag(id=WEB, name="good", version=2))
    await asking("put", PutTag(id=WEB, name="good", version=2, move=True))
    assert [one.version for one in (await asking("list", ListTags(id=WEB))).items] == [2]


async def test_retention_is_told_which_versions_are_tagged(three, asking, repository) -> None:
    for name, version in (("one", 1), ("three", 3), ("also-three", None)):
        await asking("put", PutTag(id=WEB, name=name, version=version))
    assert await repository.tags.tagged(resource_key(WEB)) == {(MAIN, 1), (MAIN, 3)}
    await asking("remove", RemoveTag(id=WEB, name="one"))
    assert await repository.tags.tagged(resource_key(WEB)) == {(MAIN, 3)}
    assert await repository.tags.tagged(resource_key("prod:configmaps:shop:other")) == set()


async def test_a_tag_says_signed_who_gave_it_to_what(three, asking, repository) -> None:
    await asking("put", PutTag(id=WEB, name="good", version=1))
    kept = await repository.tags.get(resource_key(WEB), "good")
    SIGNER.verifier.verify(tag_bytes(kept), kept.signature, context="tag")
    assert kept.commit == (await repository.get(resource_key(WEB), MAIN, 1)).commit


@pytest.mark.parametrize("name", ["", "-x", "x.", "a b", "a/b", "$ne", "a\n", "x" * 64, "ä"])
async def test_what_is_no_name_is_refused(three, asking, name: str) -> None:
    with pytest.raises(Invalid):
        await asking("put", PutTag(id=WEB, name=name))
    with pytest.raises(NotFound):
        await asking("remove", RemoveTag(id=WEB, name=name))


async def test_an_object_has_a_hundred_tags_at_most(three, asking) -> None:
    for number in range(100):
        await asking("put", PutTag(id=WEB, name=f"t{number}"))
    with pytest.raises(TooLarge):
        await asking("put", PutTag(id=WEB, name="one-more"))


async def test_who_may_not_change_an_object_does_not_tag_it(three, asking) -> None:
    with pytest.raises(Forbidden):
        await asking("put", PutTag(id=WEB, name="mine"), VIEWER)
    await asking("put", PutTag(id=WEB, name="good"))
    with pytest.raises(Forbidden):
        await asking("remove", RemoveTag(id=WEB, name="good"), VIEWER)
    assert len((await asking("list", ListTags(id=WEB), VIEWER)).items) == 1
    for method, request in (
        ("put", PutTag(id=WEB, name="mine")),
        ("list", ListTags(id=WEB)),
        ("remove", RemoveTag(id=WEB, name="good")),
    ):
        with pytest.raises(NotFound):
            await asking(method, request, ELSEWHERE)


async def test_a_namespace_is_tagged_as_it_was(recorder, changed, three, asking, repository) -> None:
    await recorder.take(
        [changed("created", 4, {}, name="late", uid=2), changed("deleted", 5, {}, name="late", uid=2)]
    )
    request = TagSnapshot(cluster="prod", namespace="shop", at=START + 2.5, name="friday")
    done = await asking("put_on_snapshot", request)
    assert (done.tagged, done.kept, done.skipped) == (1, 0, 0)
    assert [one.version for one in (await asking("list", ListTags(id=WEB))).items] == [2]
    later = TagSnapshot(cluster="prod", namespace="shop", at=START + 4.5, name="friday")
    assert (await asking("put_on_snapshot", later)).kept == 1
    later.move = True
    assert (await asking("put_on_snapshot", later)).tagged == 2
    assert [one.version for one in (await asking("list", ListTags(id=WEB))).items] == [3]
    with pytest.raises(Forbidden):
        await asking("put_on_snapshot", request, VIEWER)
    assert (await asking("put_on_snapshot", request, ELSEWHERE)).tagged == 0
