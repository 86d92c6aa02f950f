"""Reads kubeconfigs that strangers wrote, and lets through nothing that has to be followed.

A kubeconfig can name commands to run, files to read and send, and addresses
inside the operator's network. kubernetes clients follow all of it; a server
must not (compare Flux's GHSA-vvmq-fwmg-2gjc). So only known fields are read,
each is checked, and what comes out is a `ClusterAccess`: plain values, no path.
Every refusal is a KubeconfigRefused with a code for programs and a remedy for
people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubelore.common.contracts.clusters import ContextReport, Inspection
from kubelore.common.errors import KubeconfigRefused, KubeloreError
from kubelore.common.kube.access import ClusterAccess
from kubelore.common.kube.addresses import AddressPolicy, check_server_name, check_url
from kubelore.common.kube.cluster_name import suggest_names
from kubelore.common.kube.credential_plugin import CREATE_SERVICE_ACCOUNT, check_exec
from kubelore.common.kube.credentials import (
    certificate_expiry,
    check_authority,
    check_client_pair,
    check_token,
    decode_data,
    token_expiry,
)
from kubelore.common.kube.documents import load_documents

MAX_KUBECONFIG_BYTES = 1024 * 1024


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None


class _User(msgspec.Struct, rename="kebab"):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    username: str | None = None
    password: str | None = None
    impersonate: str | None = msgspec.field(default=None, name="as")
    impersonate_uid: str | None = msgspec.field(default=None, name="as-uid")
    impersonate_groups: list[str] | None = msgspec.field(default=None, name="as-groups")
    impersonate_extra: dict[str, Any] | None = msgspec.field(default=None, name="as-user-extra")
    exec: dict[str, Any] | None = None
    auth_provider: Any = None


class _Context(msgspec.Struct):
    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster | None = None


class _NamedUser(msgspec.Struct):
    name: str
    user: _User | None = None


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context | None = None


class _Kubeconfig(msgspec.Struct, rename="kebab"):
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None
    current_context: str | None = None


def read_kubeconfig(
    text: str, context: str | None, policy: AddressPolicy, *, now: datetime | None = None
) -> ClusterAccess:
    """The cleansed access of one context; raises KubeconfigRefused.

    `context` may be None only where the kubeconfig has exactly one: with
    several the caller picks, and the refusal lists them in `contexts`.
    """
    config = _parse(text)
    return _access(config, _pick(config, context), policy, now or datetime.now(UTC))


def inspect_kubeconfig(text: str, policy: AddressPolicy, *, now: datetime | None = None) -> Inspection:
    """Every context of a kubeconfig, each with the reason why it could not be added, if there is one."""
    config = _parse(text)
    at = now or datetime.now(UTC)
    contexts = config.contexts or []
    names = suggest_names([each.name for each in contexts])
    reports = [_report(config, each, names[each.name], policy, at) for each in contexts]
    return Inspection(contexts=reports, current_context=config.current_context or None)


def _parse(text: str) -> _Kubeconfig:
    if len(text) > MAX_KUBECONFIG_BYTES:
        raise KubeconfigRefused(
            f"the kubeconfig is larger than {MAX_KUBECONFIG_BYTES} bytes",
            code="too-large",
            remedy="export one context alone: `kubectl config view --raw --flatten --minify`",
        )
    try:
        documents = load_documents(text, max_bytes=MAX_KUBECONFIG_BYTES, max_documents=1)
    except KubeloreError as error:
        raise _unreadable(error.detail) from error
    if len(documents) != 1:
        raise _unreadable("it is empty")
    try:
        config = msgspec.convert(documents[0], _Kubeconfig)
    except msgspec.ValidationError as error:
        raise _unreadable(str(error)) from error
    for what, entries in (
        ("cluster", config.clusters),
        ("user", config.users),
        ("context", config.contexts),
    ):
        _refuse_duplicates(what, [entry.name for entry in entries or []])
    return config


def _unreadable(why: str) -> KubeconfigRefused:
    return KubeconfigRefused(
        f"the text is no readable kubeconfig: {why}",
        code="invalid-yaml",
        remedy="send the output of `kubectl config view --raw --flatten`",
    )


def _refuse_duplicates(what: str, names: Iterable[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise KubeconfigRefused(
            f"the {what} {twice[0]!r} is defined more than once",
            code="duplicate-name",
            remedy=f"leave one {what} of that name",
        )


def _pick(config: _Kubeconfig, wanted: str | None) -> _NamedContext:
    contexts = config.contexts or []
    names = [each.name for each in contexts]
    if wanted is None and len(contexts) != 1:
        raise KubeconfigRefused(
            f"the kubeconfig has {len(contexts)} contexts, and none was chosen",
            code="ambiguous-context" if contexts else "missing-context",
            remedy="name one of them as `context`" if contexts else "send a kubeconfig with a context",
            contexts=names,
            current_context=config.current_context,
        )
    for each in contexts:
        if wanted is None or each.name == wanted:
            return each
    raise KubeconfigRefused(
        f"the kubeconfig has no context {wanted!r}",
        code="missing-context",
        remedy="name one of the contexts that it has",
        contexts=names,
    )


def _access(config: _Kubeconfig, named: _NamedContext, policy: AddressPolicy, now: datetime) -> ClusterAccess:
    context = named.context or _Context()
    cluster = _cluster_of(config, named.name, context)
    user = _user_of(config, named.name, context)
    access = ClusterAccess(server="", context=named.name, namespace=context.namespace or "")
    _read_cluster(cluster, access, policy, now)
    _read_user(user, access, policy, now)
    return access


def _cluster_of(config: _Kubeconfig, name: str, context: _Context) -> _Cluster:
    for each in config.clusters or []:
        if each.name == context.cluster:
            return each.cluster or _Cluster()
    raise KubeconfigRefused(
        f"the context {name!r} names the cluster {context.cluster!r}, which the kubeconfig does not hold",
        code="missing-cluster",
        remedy="export the whole context: `kubectl config view --raw --flatten --minify --context NAME`",
    )


def _user_of(config: _Kubeconfig, name: str, context: _Context) -> _User:
    for each in config.users or []:
        if each.name == context.user:
            return each.user or _User()
    raise KubeconfigRefused(
        f"the context {name!r} names the user {context.user!r}, which the kubeconfig does not hold",
        code="missing-user",
        remedy="export the whole context: `kubectl config view --raw --flatten --minify --context NAME`",
    )


def _read_cluster(cluster: _Cluster, access: ClusterAccess, policy: AddressPolicy, now: datetime) -> None:
    _refuse_path("certificate-authority", cluster.certificate_authority)
    check_url(cluster.server or "", policy, field="server")
    access.server = (cluster.server or "").rstrip("/")
    if cluster.proxy_url:
        check_url(cluster.proxy_url, policy, field="proxy-url")
        access.proxy_url = cluster.proxy_url
    if cluster.tls_server_name:
        check_server_name(cluster.tls_server_name)
        access.tls_server_name = cluster.tls_server_name
    if cluster.certificate_authority_data:
        access.ca_pem = decode_data(cluster.certificate_authority_data, field="certificate-authority-data")
        check_authority(access.ca_pem, now=now)
    access.insecure = bool(cluster.insecure_skip_tls_verify)
    if access.insecure and (not policy.allow_insecure_tls or access.ca_pem):
        raise KubeconfigRefused(
            "insecure-skip-tls-verify would send the credentials to whoever answers",
            code="insecure-tls",
            remedy="give certificate-authority-data instead, "
            "or let the operator set KUBELORE_ALLOW_INSECURE_TLS=true",
        )


def _read_user(user: _User, access: ClusterAccess, policy: AddressPolicy, now: datetime) -> None:
    _refuse_path("tokenFile", user.token_file)
    _refuse_path("client-certificate", user.client_certificate)
    _refuse_path("client-key", user.client_key)
    _refuse_followed(user)
    if user.exec is not None:
        access.exec = check_exec(user.exec, policy)
    if user.client_certificate_data or user.client_key_data:
        certificate, key = user.client_certificate_data or "", user.client_key_data or ""
        access.client_cert_pem = decode_data(certificate, field="client-certificate-data")
        access.client_key_pem = decode_data(key, field="client-key-data")
        check_client_pair(access.client_cert_pem, access.client_key_pem, now=now)
    if user.token:
        access.token = user.token.strip()
        check_token(access.token, now=now)
    if access.authentication == "none":
        raise KubeconfigRefused(
            "the user has no credentials",
            code="no-credentials",
            remedy="give a token or client-certificate-data with client-key-data",
        )


def _refuse_followed(user: _User) -> None:
    if user.auth_provider is not None:
        raise KubeconfigRefused(
            "auth-provider runs code of the machine that reads the kubeconfig",
            code="auth-provider",
            remedy=f"{CREATE_SERVICE_ACCOUNT}; or use a client certificate",
        )
    if user.username or user.password:
        raise KubeconfigRefused(
            "user name and password: Kubernetes dropped basic authentication in 1.19",
            code="basic-auth",
            remedy="use a service account's token, or a client certificate",
        )
    if user.impersonate or user.impersonate_uid or user.impersonate_groups or user.impersonate_extra:
        raise KubeconfigRefused(
            "the user impersonates somebody else",
            code="impersonation",
            remedy="give credentials of the user that is meant",
        )


def _refuse_path(field: str, value: str | None) -> None:
    if value:
        raise KubeconfigRefused(
            f"{field} is a path to a file, which a server does not follow",
            code="file-path",
            remedy="inline it: `kubectl config view --raw --flatten`, "
            "or `kubelore clusters add --from-kubeconfig FILE`",
        )


def _report(
    config: _Kubeconfig, named: _NamedContext, suggested: str, policy: AddressPolicy, now: datetime
) -> ContextReport:
    context = named.context or _Context()
    report = ContextReport(
        name=named.name,
        cluster=context.cluster or "",
        user=context.user or "",
        server="",
        namespace=context.namespace or "",
        authentication="none",
        suggested_name=suggested,
        usable=False,
    )
    try:
        cluster, user = _cluster_of(config, named.name, context), _user_of(config, named.name, context)
        report.authentication = _authentication(user)
        report.server = _shown(cluster.server or "")
        access = _access(config, named, policy, now)
    except KubeconfigRefused as error:
        report.refusal, report.detail, report.remedy = error.code, error.detail, error.remedy
        return report
    report.certificate_expires_at = _time(certificate_expiry(access.client_cert_pem))
    report.token_expires_at = _time(token_expiry(access.token))
    report.usable = True
    return report


def _time(when: datetime | None) -> str | None:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ") if when else None


def _shown(url: str) -> str:
    """A URL for people: without the user name and password that it must not have."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"[:300]


def _authentication(user: _User) -> str:
    """The first kind of credentials that applies, in the words of `ContextReport.authentication`."""
    kinds: tuple[tuple[str, Callable[[_User], object]], ...] = (
        ("exec", lambda each: each.exec is not None),
        ("auth-provider", lambda each: each.auth_provider is not None),
        ("basic", lambda each: each.username or each.password),
        ("token", lambda each: each.token or each.token_file),
        ("client-certificate", lambda each: each.client_certificate_data or each.client_certificate),
    )
    return next((kind for kind, applies in kinds if applies(user)), "none")
