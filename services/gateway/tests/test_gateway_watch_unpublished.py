"""A watch that could never say anything is refused, not opened."""

import pytest

from kubelore.common.errors import BadRequest
from kubelore.gateway.watch import refuse_unpublished


@pytest.mark.parametrize("types", [["events"], ["pods", "leases.coordination.k8s.io"]])
def test_types_outside_the_stream_are_named(types: list[str]) -> None:
    with pytest.raises(BadRequest, match=types[-1]):
        refuse_unpublished(types)


def test_everything_and_published_types_pass() -> None:
    refuse_unpublished([])
    refuse_unpublished(["pods", "deployments.apps"])
