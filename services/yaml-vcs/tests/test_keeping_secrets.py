"""Values of Secrets open for whom may know them, and contents that were redacted are gone while the chain stays."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
import pytest

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.branches import MakeBranch, RemoveBranch
from kubelore.common.contracts.keeping import RedactVersion, RevealValues, reveal_context
from kubelore.common.contracts.versions import DiffVersions, GetVersion, ListVersions, VerifyHistory
from kubelore.common.crypto import Keyring
from kubelore.common.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    IntegrityError,
    NotFound,
)
from kubelore.common.kube.secrets import secret_context
from kubelore.common.store import open_database
from kubelore.yaml_vcs.branches import Drafts
from kubelore.yaml_vcs.gap_repository import Mark, parked_scope
from kubelore.yaml_vcs.history import MAIN
from kubelore.yaml_vcs.normalising import Normaliser
from kubelore.yaml_vcs.redactions import Redacting
from kubelore.yaml_vcs.repository import resource_key, version_id
from kubelore.yaml_vcs.secrets import Revealing, SecretValues

SECRET = "prod:secrets:shop:web"
WEB = "prod:configmaps:shop:web"
UID = "6b1f0f4e-0000-4000-8000-000000000001"
VIEWER = Caller(subject="vic", grants=(Grant(role="viewer"),))
OPERATOR = Caller(subject="olga", grants=(Grant(role="operator"),))
READER = Caller(subject="rita", grants=(Grant(role="viewer", rights=("secrets",), namespaces=("shop",)),))


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.create(tmp_path / "versions.json", "versions")


@pytest.fixture
def gateway(tmp_path: Path) -> Keyring:
    return Keyring.create(tmp_path / "gateway.json", "gateway")


@pytest.fixture
def revealing(repository, histories, keyring, gateway) -> Revealing:
    return Revealing(repository, histories, SecretValues(keyring), gateway.recipient(), lambda: 7.0)


@pytest.fixture
def redacting(repository, histories, signer) -> Redacting:
    return Redacting(repository, histories, signer, lambda: 1_800_000_000.0)


@pytest.fixture
def secret(changed, keyring):
    """A change of a Secret as resource-ops publishes it."""

    def make(rv: int, values: dict[str, bytes] | None, **more):
        made = changed("created" if rv == 1 else "updated", rv, None, type_name="secrets", **more)
        if values is not None:
            made.hmacs = {key: keyring.hmac(value, context=key) for key, value in values.items()}
            context = secret_context("prod", UID, str(rv))
            made.sealed = keyring.recipient().seal(msgspec.msgpack.encode(values), context=context)
        return made

    return make


async def asked(revealing: Revealing, gateway: Keyring, number: int, keys=(), caller=READER):
    nonce = secrets.token_hex(8)
    request = RevealValues(id=SECRET, version=number, nonce=nonce, reason="a look", keys=list(keys))
    with acting_as(caller):
        answer = await revealing.reveal(request)
    opened = gateway.open_box(answer.sealed, context=reveal_context(nonce, SECRET, number))
    return msgspec.msgpack.decode(opened, type=dict[str, bytes])


async def test_the_values_of_each_version_open_for_the_right_secrets(
    recorder, secret, revealing, gateway, settings
) -> None:
    await recorder.take(
        [secret(1, {"password": b"old", "user": b"me"}), secret(2, {"password": b"new", "user": b"me"})]
    )
    assert await asked(revealing, gateway, 1) == {"password": b"old", "user": b"me"}
    assert await asked(revealing, gateway, 2, ["password"]) == {"password": b"new"}
    async with await open_database(settings) as database:
        noted = [(one["version"], one["by"], one["reason"], one["keys"], one["at"])
            async for one in database.collection("version_reveals").scan()]  # fmt: skip
    assert sorted(noted) == [
        (1, "rita", "a look", ["password", "user"], 7.0),
        (2, "rita", "a look", ["password"], 7.0),
    ]


async def test_the_values_kept_are_those_of_the_version_kept_when_nothing_changed(
    recorder, secret, revealing, gateway
) -> None:
    values = {"password": b"same"}
    await recorder.take([secret(1, values), secret(2, values), secret(3, values)])
    assert await asked(revealing, gateway, 1) == values
    with pytest.raises(NotFound):
        await asked(revealing, gateway, 2)


@pytest.mark.parametrize("caller", [VIEWER, OPERATOR])
async def test_without_the_right_no_value_is_shown(recorder, secret, revealing, gateway, caller) -> None:
    await recorder.take([secret(1, {"password": b"old"})])
    with pytest.raises(Forbidden):
        await asked(revealing, gateway, 1, caller=caller)


async def test_a_version_says_when_it_was_taken_without_values(recorder, secret, revealing, gateway) -> None:
    await recorder.take([secret(1, None)])
    with pytest.raises(NotFound, match="has no values"):
        await asked(revealing, gateway, 1)
    await recorder.take([secret(2, {"a": b"1"})])
    with pytest.raises(NotFound, match="no key 'b'"):
        await asked(revealing, gateway, 2, ["b"])


async def test_values_moved_to_another_version_do_not_open(
    recorder, secret, revealing, gateway, settings
) -> None:
    await recorder.take([secret(1, {"password": b"old"}), secret(2, {"password": b"new"})])
    async with await open_database(settings) as database:
        held = database.collection("versions")
        (one, two) = (version_id(resource_key(SECRET), MAIN, number) for number in (1, 2))
        await held.update(one, {"s": (await held.get(two))["s"]})
    with pytest.raises(IntegrityError):
        await asked(revealing, gateway, 1)


async def test_an_answer_opens_only_for_the_question_it_answers(recorder, secret, revealing, gateway) -> None:
    await recorder.take([secret(1, {"password": b"old"})])
    with acting_as(READER):
        answer = await revealing.reveal(RevealValues(id=SECRET, version=1, nonce="mine", reason="a look"))
    with pytest.raises(IntegrityError):
        gateway.open_box(answer.sealed, context=reveal_context("other", SECRET, 1))


async def test_what_is_no_secret_has_no_values(recorder, changed, revealing) -> None:
    await recorder.take([changed("created", 1, {"a": "1"})])
    with acting_as(READER), pytest.raises(BadRequest):
        await revealing.reveal(RevealValues(id=WEB, version=1, nonce="n", reason="a look"))


async def redact(redacting: Redacting, number: int, id_: str = WEB, caller: Caller = ADMINISTRATOR):
    with acting_as(caller):
        return await redacting.redact(RedactVersion(id=id_, version=number, reason="a password in it"))


async def test_a_redacted_content_is_gone_and_the_rest_reads_and_verifies(
    recorder, start, changed, redacting, histories, settings
) -> None:
    kinds = ["created", *["updated"] * 6]
    texts = ["1", "leak", "3", "leak", "5", "6", "7"]
    await recorder.take([changed(kind, n, {"a": text})
        for n, (kind, text) in enumerate(zip(kinds, texts, strict=True), 1)])  # fmt: skip
    assert (await redact(redacting, 4)).versions == [2, 4]
    await recorder.take([changed("updated", 8, {"a": "8"})])
    await start().take([changed("updated", 9, {"a": "9"})])
    with acting_as(ADMINISTRATOR):
        assert (await histories.verify(VerifyHistory(id=WEB))).ok
        page = await histories.list(ListVersions(id=WEB))
        assert [one.version for one in page.items if one.redacted] == [4, 2]
        for number, text in zip((1, 3, 5, 6, 7, 8, 9), "1356789", strict=True):
            found = await histories.get(GetVersion(id=WEB, version=number))
            assert f'a: "{text}"' in found.yaml_content
        assert (await histories.get(GetVersion(id=WEB, version=4))).yaml_content == ""
        for method, request in (
            ("diff", DiffVersions(id=WEB, from_version=3, to_version=4)),
            ("blame", GetVersion(id=WEB, version=4)),
        ):
            with pytest.raises(Gone, match=r"version 4 of .* was redacted by admin at 2027-01-15"):
                await getattr(histories, method)(request)
        told = {line.text.strip(): line.version for line in (await histories.blame(GetVersion(id=WEB))).lines}
        assert told['a: "9"'] == 9
    with pytest.raises(Gone):
        await redact(redacting, 4)
    async with await open_database(settings) as database:
        held = [str(one) async for one in database.collection("versions").scan()]
    assert not [one for one in held if "leak" in one]


async def test_of_a_secret_the_sealed_values_go_with_the_content(
    recorder, secret, redacting, revealing, gateway, settings
) -> None:
    await recorder.take([secret(1, {"password": b"old"}), secret(2, {"password": b"new"})])
    await redact(redacting, 1, SECRET)
    with pytest.raises(Gone):
        await asked(revealing, gateway, 1)
    async with await open_database(settings) as database:
        held = await database.collection("versions").get(version_id(resource_key(SECRET), MAIN, 1))
    assert not {"s", "f"} & set(held)
    assert await asked(revealing, gateway, 2) == {"password": b"new"}


async def test_what_is_in_the_cluster_now_a_tombstone_and_a_stranger_s_word_are_refused(
    recorder, changed, redacting
) -> None:
    await recorder.take([changed("created", 1, {"a": "1"}), changed("updated", 2, {"a": "2"})])
    with pytest.raises(Conflict):
        await redact(redacting, 2)
    with pytest.raises(Forbidden):
        await redact(redacting, 1, caller=OPERATOR)
    await recorder.take([changed("deleted", 3, {}), changed("created", 4, {"a": "4"}, uid=2)])
    with pytest.raises(BadRequest):
        await redact(redacting, 3)
    with acting_as(ADMINISTRATOR), pytest.raises(BadRequest):
        await redacting.redact(RedactVersion(id=WEB, version=1, reason=" "))


async def test_a_content_that_somebody_else_took_out_is_found(
    recorder, changed, redacting, histories, settings
) -> None:
    await recorder.take([changed("created" if n == 1 else "updated", n, {"a": str(n)}) for n in range(1, 5)])
    await redact(redacting, 1)
    async with await open_database(settings) as database:
        held = database.collection("versions")
        forged = (await held.get(version_id(resource_key(WEB), MAIN, 1)))["x"]
        await held.update(version_id(resource_key(WEB), MAIN, 3), {"x": forged}, unset=("f",))
    with acting_as(ADMINISTRATOR):
        found = await histories.verify(VerifyHistory(id=WEB))
    assert (found.ok, found.broken) == (False, 3)


async def test_a_content_that_a_draft_holds_too_is_not_said_to_be_gone(
    recorder, changed, repository, histories, signer, redacting
) -> None:
    await recorder.take([changed("created" if n == 1 else "updated", n, {"a": str(n)}) for n in (1, 2, 3)])
    drafts = Drafts(repository, histories, Normaliser(), signer)
    with acting_as(ADMINISTRATOR):
        await drafts.make(MakeBranch(id=WEB, name="idea", version=2))
        await drafts.make(MakeBranch(id=WEB, name="other", version=3))
    with pytest.raises(Conflict, match="hold this content too: idea"):
        await redact(redacting, 2)
    with acting_as(ADMINISTRATOR):
        await drafts.remove(RemoveBranch(id=WEB, name="idea"))
    assert (await redact(redacting, 2)).versions == [2]


async def test_what_a_killed_redaction_left_of_late_changes_goes_when_it_is_asked_for_again(
    recorder, changed, repository, redacting
) -> None:
    await recorder.take([changed("created" if n == 1 else "updated", n, {"a": str(n)}) for n in (1, 2)])
    taken = (await repository.all_of(resource_key(WEB)))[0]
    await redact(redacting, 1)
    late = Mark(id="m", scope=parked_scope(WEB), at=1.0, late=True, hash=taken.hash, frame=b"leak")
    await repository.marks.keep_late(late)
    with pytest.raises(Gone):
        await redact(redacting, 1)
    assert [one.frame for one in await repository.marks.of([parked_scope(WEB)], 0, None)] == [b""]
