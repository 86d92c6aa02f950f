"""`kubelore clusters` for what the API's own tests do not show: what is offered, refused and said at a terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet


@pytest.fixture
def cli(kubelore, command_line):
    return command_line(kubelore.url, kubelore.token)


@pytest_asyncio.fixture(loop_scope="session")
async def kubeconfigs(kubelore, tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """The files of two simulated clusters; the first is onboarded as `mine`."""
    async with SimulatedFleet(clusters=2, pods=1) as fleet:
        paths = [tmp_path / f"{cluster.name}.kubeconfig" for cluster in fleet]
        for path, cluster in zip(paths, fleet, strict=True):
            path.write_text(cluster.kubeconfig)
        await kubelore.onboard("mine", fleet[0].kubeconfig, group="own", tags=["first"])
        yield str(paths[0]), str(paths[1])
        for name in ("mine", "twin"):
            await kubelore.remove(name)


async def test_a_shell_is_offered_clusters_groups_and_tags(kubeconfigs, cli) -> None:
    async def offered(*words: str) -> list[str]:
        said = await cli("clusters", *words, program="kubectl_complete-kubelore")
        return said.out.split()[:-1]

    assert await offered("show", "mi") == ["mine"]
    assert await offered("remove", "mine", "mi") == []
    assert await offered("list", "--group", "ow") == ["own"]
    assert await offered("list", "--tag", "fir") == ["first"]
    assert await offered("groups", "rename", "ow") == ["own"]


async def test_a_second_name_for_a_cluster_is_refused_until_it_is_asked_for(kubeconfigs, cli) -> None:
    twin = ("clusters", "add", "twin", "--from-kubeconfig", kubeconfigs[0])
    refused = await cli(*twin)
    assert refused.code == 1
    assert "as 'mine'" in refused.err
    assert "--allow-duplicate" in refused.err
    assert (await cli(*twin, "--allow-duplicate")).out == "cluster twin added\n"


async def test_another_clusters_former_name_is_refused_until_it_is_asked_for(kubeconfigs, cli) -> None:
    removed = await cli("clusters", "remove", "mine", "--yes")
    assert removed.out == "cluster mine removed\n"
    other = ("clusters", "add", "mine", "--from-kubeconfig", kubeconfigs[1])
    refused = await cli(*other)
    assert refused.code == 1
    assert "--new-history" in refused.err
    assert (await cli(*other, "--new-history")).out == "cluster mine added\n"


async def test_a_list_that_filters_leave_empty_does_not_say_that_there_are_no_clusters(
    kubeconfigs, cli
) -> None:
    said = await cli("clusters", "list", "--tag", "nobodys")
    assert (said.code, said.out) == (0, "")
    assert "without filters" in said.err


async def test_a_group_that_nothing_is_in_is_named(kubeconfigs, cli) -> None:
    said = await cli("get", "pods", "-c", "group:nope")
    assert said.code == 1
    assert "No cluster is in group:nope." in said.err


async def test_a_renamed_group_says_how_many_are_in_it(kubeconfigs, cli) -> None:
    renamed = await cli("clusters", "groups", "rename", "own", "mine-alone")
    assert renamed.out == "group own is now mine-alone, with 1 cluster\n"


async def test_a_service_account_that_cannot_be_made_for_one_of_many_is_told_with_what_to_do(
    kubeconfigs, cli, tmp_path: Path
) -> None:
    words = ("--from-kubeconfig", kubeconfigs[1], "--all-contexts", "--create-service-account")
    refused = await cli("clusters", "add", *words, environment={"PATH": str(tmp_path)})
    assert refused.code == 1
    assert "kubectl is not on the PATH - Install it" in refused.err


async def test_a_local_file_that_is_missing_is_told_before_anything_is_asked(cli) -> None:
    refused = await cli("cp", "/nope", "web-0:/tmp/x", environment={"KUBELORE_URL": "http://127.0.0.1:1"})
    assert (refused.code, refused.err) == (1, "error: /nope cannot be read: No such file or directory\n")
