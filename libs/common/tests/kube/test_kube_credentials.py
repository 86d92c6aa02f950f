"""Credential plugins that are allowed, client certificates in memory, and files inlined by the CLI."""

from __future__ import annotations

import base64
import json
import os
import shlex
import ssl
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from pydantic import SecretStr

from kubelore.common.errors import KubeconfigRefused, Unauthenticated
from kubelore.common.kube import (
    AddressPolicy,
    ClusterAccess,
    ExecCommand,
    KubeClient,
    credential_plugin,
    inline_kubeconfig,
    read_kubeconfig,
)
from kubelore.common.kube.credential_plugin import CredentialPlugin
from kubelore.common.kube.tls import tls_context
from kubelore.common.settings import CommonSettings

V1 = "client.authentication.k8s.io/v1"


def plugin(script: str, **environment: str) -> CredentialPlugin:
    access = ClusterAccess(server="https://api.example.com", ca_pem=b"ca")
    return CredentialPlugin(
        access, ExecCommand(argv=(sys.executable, "-c", script), api_version=V1), environment
    )


def printing(token: str, expires: datetime | None = None) -> str:
    status: dict[str, Any] = {"token": token}
    if expires:
        status["expirationTimestamp"] = expires.isoformat()
    return f"print({json.dumps({'status': status})!r})"


async def test_a_plugins_token_is_used_and_kept_until_it_expires(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    count = f"open({str(runs)!r}, 'a').write('x');"
    held = plugin(count + printing("t", datetime.now(UTC) + timedelta(hours=1)))
    assert [await held.token(), await held.token()] == ["t", "t"]
    assert runs.read_text() == "x"
    held.forget()
    await held.token()
    assert runs.read_text() == "xx"


async def test_a_token_about_to_expire_is_asked_for_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    count = f"open({str(runs)!r}, 'a').write('x');"
    held = plugin(count + printing("t", datetime.now(UTC) + timedelta(seconds=20)))
    await held.token()
    await held.token()
    assert runs.read_text() == "xx"


@pytest.mark.parametrize(
    "script",
    [
        "raise SystemExit(3)",
        "print('no json')",
        "print('{\"status\": {}}')",
        'print(\'{"status": {"token": "two words"}}\')',
        "print('x' * 10_000_000)",
    ],
)
async def test_a_plugin_that_fails_is_named(script: str) -> None:
    with pytest.raises(Unauthenticated, match="credential plugin"):
        await plugin(script).token()


async def test_a_plugin_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(credential_plugin, "PLUGIN_DEADLINE_S", 1.0)
    pid = tmp_path / "pid"
    with pytest.raises(Unauthenticated, match="did not answer"):
        await plugin(
            f"import os,time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
        ).token()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_a_plugin_sees_only_what_the_operator_sets_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBELORE_NATS_PASSWORD", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-somebody-else")
    script = (
        "import os, json; found = sorted(set(os.environ) - {'LC_CTYPE'});"
        'print(json.dumps({"status": {"token": ",".join(found) + os.environ["AWS_PROFILE"]}}))'
    )
    assert await plugin(script, AWS_PROFILE="prod").token() == "AWS_PROFILE,KUBERNETES_EXEC_INFOprod"


async def test_a_command_that_is_no_longer_allowed_no_longer_connects() -> None:
    access = ClusterAccess(
        server="https://api.example.com", exec=ExecCommand(argv=("/bin/aws", "x"), api_version=V1)
    )
    await KubeClient(access, AddressPolicy(exec_allowed=("/bin/aws x",))).close()
    with pytest.raises(KubeconfigRefused, match="does not allow"):
        KubeClient(access, AddressPolicy())


@pytest.mark.parametrize("command", ["aws eks get-token", "./aws x", "", "/bin/aws 'x"])
def test_settings_take_commands_by_absolute_paths_only(command: str) -> None:
    with pytest.raises(ValueError, match=r"absolute path|into words"):
        CommonSettings(allowed_exec_commands=[command])


def test_settings_name_the_whole_environment_of_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBELORE_EXEC_ENVIRONMENT", '{"HOME": "/var/lib/kubelore", "AWS_TOKEN": "hunter2"}')
    settings = CommonSettings()
    policy = AddressPolicy.from_settings(settings)
    assert dict(policy.exec_environment) == {"HOME": "/var/lib/kubelore", "AWS_TOKEN": "hunter2"}
    assert "hunter2" not in repr(settings) + repr(policy)
    with pytest.raises(ValueError, match="environment variable"):
        CommonSettings(exec_environment={"A=B": SecretStr("x")})


async def test_a_plugins_token_that_is_refused_is_asked_for_again(
    start_api: Any, lenient: AddressPolicy, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"

    async def answer(request: web.Request) -> web.Response:
        fresh = request.headers["Authorization"] == "Bearer xx"
        return web.json_response({"gitVersion": "v1"}, status=200 if fresh else 401)

    api = await start_api(answer)
    script = (
        f"import json; f = open({str(runs)!r}, 'a'); f.write('x'); f.close();"
        f'print(json.dumps({{"status": {{"token": open({str(runs)!r}).read()}}}}))'
    )
    access = api.access
    access.token, access.exec = "", ExecCommand(argv=(sys.executable, "-c", script), api_version=V1)
    allowed = replace(lenient, exec_allowed=(shlex.join(access.exec.argv),))
    async with KubeClient(access, allowed) as client:
        with pytest.raises(Unauthenticated):
            await client.version()
        assert await client.version() == {"gitVersion": "v1"}


def test_a_client_certificate_leaves_no_file_behind(
    authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    issued = authority.issue()
    access = ClusterAccess(
        server="https://api.example.com",
        ca_pem=authority.pem,
        client_cert_pem=issued.certificate,
        client_key_pem=issued.key,
    )
    assert tls_context(access).verify_mode is ssl.CERT_REQUIRED
    assert list(tmp_path.iterdir()) == []


def test_only_the_strictness_about_key_usage_is_cleared(authority: Any) -> None:
    context = tls_context(ClusterAccess(server="https://api.example.com", ca_pem=authority.pem))
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_the_cli_inlines_what_a_kubeconfig_names(
    kubeconfig: Callable[..., str], authority: Any, tmp_path: Path
) -> None:
    issued = authority.issue()
    (tmp_path / "pki").mkdir()
    for name, content in (("ca.crt", authority.pem), ("u.crt", issued.certificate), ("u.key", issued.key)):
        (tmp_path / "pki" / name).write_bytes(content)
    (tmp_path / "token").write_text("a-token\n")
    text = kubeconfig(
        cluster={"certificate-authority": "pki/ca.crt", "certificate-authority-data": None},
        user={
            "client-certificate": "pki/u.crt",
            "client-key": str(tmp_path / "pki/u.key"),
            "tokenFile": "token",
        },
    )
    access = read_kubeconfig(inline_kubeconfig(text, tmp_path), None, AddressPolicy())
    assert access.ca_pem == authority.pem
    assert (access.client_cert_pem, access.client_key_pem) == (issued.certificate, issued.key)
    assert access.token == "a-token"


def test_what_names_no_file_stays_as_it_is(kubeconfig: Callable[..., str], tmp_path: Path) -> None:
    text = kubeconfig(user={"exec": {"command": "aws"}})
    assert yaml.safe_load(inline_kubeconfig(text, tmp_path)) == yaml.safe_load(text)


@pytest.mark.parametrize("path", ["missing", "/dev/zero"])
def test_a_file_that_cannot_be_inlined_is_named(
    kubeconfig: Callable[..., str], tmp_path: Path, path: str
) -> None:
    with pytest.raises(KubeconfigRefused) as caught:
        inline_kubeconfig(kubeconfig(user={"tokenFile": path}), tmp_path)
    assert caught.value.code == "file-path"
    assert path in caught.value.detail


def test_inlined_data_is_base64(kubeconfig: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(b"\x00pem")
    config = yaml.safe_load(inline_kubeconfig(kubeconfig(cluster={"certificate-authority": "ca"}), tmp_path))
    assert base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]) == b"\x00pem"
