"""Where a next page begins, and who may go there."""

from pathlib import Path

import pytest

from kubelore.common.crypto import Keyring
from kubelore.common.errors import BadRequest, Gone
from kubelore.gateway.continuation import LIFETIME_S, Continuation

KEY = ["web-1", "prod", "pods", "shop", "web-1"]


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def continuation(tmp_path: Path, clock: Clock) -> Continuation:
    return Continuation(Keyring.create(tmp_path / "gateway.json", "gateway").sealer("continue"), clock)


def test_a_token_leads_back_to_its_key(continuation: Continuation) -> None:
    token = continuation.seal(KEY, "alice|pods")
    assert continuation.open(token, "alice|pods") == KEY


def test_a_token_says_nothing_to_its_bearer(continuation: Continuation) -> None:
    assert "web-1" not in continuation.seal(KEY, "alice|pods")


@pytest.mark.parametrize("binding", ["bob|pods", "alice|deployments"])
def test_the_token_of_another_caller_or_query_is_refused(continuation: Continuation, binding: str) -> None:
    token = continuation.seal(KEY, "alice|pods")
    with pytest.raises(BadRequest, match="does not belong"):
        continuation.open(token, binding)


@pytest.mark.parametrize(
    "spoil", [lambda t: t[:-4], lambda t: "A" + t[1:], lambda t: "", lambda t: "é", lambda t: t[::-1]]
)
def test_a_changed_token_is_refused(continuation: Continuation, spoil) -> None:
    token = continuation.seal(KEY, "alice|pods")
    with pytest.raises(BadRequest):
        continuation.open(spoil(token), "alice|pods")


def test_a_token_is_gone_after_a_quarter_of_an_hour(continuation: Continuation, clock: Clock) -> None:
    token = continuation.seal(KEY, "alice|pods")
    clock.now += LIFETIME_S + 1
    with pytest.raises(Gone, match="expired"):
        continuation.open(token, "alice|pods")


def test_a_token_of_another_kind_of_list_is_no_name(continuation: Continuation) -> None:
    assert continuation.open_name(continuation.seal(["web"], "alice|groups"), "alice|groups") == "web"
    with pytest.raises(BadRequest, match="no position"):
        continuation.open_name(continuation.seal(KEY, "alice|groups"), "alice|groups")
