"""The gateway's own settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, field_validator, model_validator

from kubelore.common.errors import Invalid, Unavailable
from kubelore.common.settings import CommonSettings
from kubelore.gateway.grants import GrantModels
from kubelore.gateway.jwks import check_url
from kubelore.gateway.oidc import ALGORITHMS
from kubelore.gateway.origins import origin_of

MIN_TOKEN = 16


class OidcRule(BaseModel):
    """Whoever has `value` in `claim` (or in the list there) of their token has these grants."""

    model_config = ConfigDict(extra="forbid")

    value: str = Field(min_length=1)
    claim: str = Field("", description="The groups claim when empty.")
    grants: GrantModels


class GatewaySettings(CommonSettings):
    """Where the gateway listens and how its administrator proves who he is."""

    gateway_host: str = Field(default="127.0.0.1", description="Address to listen on.")
    gateway_port: int = Field(default=8800, ge=0, le=65535, description="Port to listen on.")
    admin_token: SecretStr = Field(
        default=SecretStr(""), description="The administrator's token; wins over the file."
    )
    admin_token_file: Path | None = Field(
        default=None, description="File that holds the administrator's token."
    )
    max_body_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, description="Largest request body accepted."
    )
    max_watches: int = Field(
        default=500,
        ge=1,
        description="Watch streams open at once, and as many streams of logs. "
        "Who holds more than are free gets no other.",
    )
    max_terminals: int = Field(
        default=500, ge=1, description="Terminals attached to at once, shared in the same way."
    )

    audit_keep_days: float = Field(
        default=365, ge=0, description="Audit entries older than this many days are pruned; 0 keeps them all."
    )
    audit_keep_entries: int = Field(
        default=2_000_000, ge=0, description="Of the audit log the newest so many are kept; 0 keeps them all."
    )
    trusted_proxies: list[IPvAnyNetwork] = Field(
        default_factory=list,
        description="Networks of proxies in front, whose X-Forwarded-For is believed, as a JSON list.",
    )
    public_url: str = Field(
        default="",
        description="Address under which browsers find the gateway, such as https://kubelore.example. "
        "With https, cookies are Secure.",
    )
    allowed_origins: list[str] = Field(
        default_factory=list, description="Other origins whose pages may use a browser's session."
    )
    requests_per_second: float = Field(
        default=2000.0, ge=0, description="Requests of one subject at each replica; 0 for no limit."
    )
    requests_burst: int = Field(default=4000, ge=1, description="So many may come at once.")
    failures_per_second: float = Field(
        default=5.0, ge=0, description="Invalid credentials from one address at each replica; 0 for no limit."
    )
    failures_burst: int = Field(default=200, ge=1, description="So many may come at once.")
    oidc_issuer: str = Field(default="", description="Issuer of the OpenID provider; none when empty.")
    oidc_audience: str = Field(default="", description="What its tokens must name in `aud`.")
    oidc_jwks_url: str = Field(default="", description="Its keys; by discovery when empty.")
    oidc_ca_file: Path | None = Field(
        default=None, description="CA certificates that the provider is checked by."
    )
    oidc_subject_claim: str = Field(default="sub", description="The claim that names the caller.")
    oidc_subject_prefix: str = Field(
        default="oidc:",
        pattern=":$",
        description="Goes before that name and ends with a colon, which no token's name holds, "
        "so that nobody can be taken for a token or for `admin`.",
    )
    oidc_groups_claim: str = Field(default="groups", description="The claim that `oidc_grants` look at.")
    oidc_algorithms: list[str] = Field(
        default_factory=lambda: sorted(ALGORITHMS), description="Signatures that are accepted."
    )
    oidc_grants: list[OidcRule] = Field(
        default_factory=list, description="Grants by what a token says: `[{value, grants, claim?}]`."
    )
    oidc_allow_loopback: bool = Field(
        default=False, description="Whether keys may come by http from loopback."
    )

    @field_validator("public_url")
    @classmethod
    def _has_an_origin(cls, url: str) -> str:
        if url:
            origin_of(url)
        return url

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, urls: list[str]) -> list[str]:
        return [origin_of(url) for url in urls]

    @field_validator("oidc_algorithms")
    @classmethod
    def _are_asymmetric(cls, names: list[str]) -> list[str]:
        if unknown := sorted(set(names) - ALGORITHMS):
            raise ValueError(
                f"{', '.join(unknown)} cannot be allowed; these can: {', '.join(sorted(ALGORITHMS))}"
            )
        return names

    @model_validator(mode="after")
    def _whole_provider(self) -> GatewaySettings:
        if not self.oidc_issuer:
            return self
        if not self.oidc_audience:
            raise ValueError("oidc_audience must be set: else tokens made for other services would be taken")
        try:
            check_url(self.oidc_jwks_url or self.oidc_issuer, allow_loopback=self.oidc_allow_loopback)
        except Unavailable as error:
            raise ValueError(error.detail) from error
        return self

    def read_admin_token(self) -> str:
        """The administrator's token; raises Invalid when none is set, since an open gateway must not start."""
        token = self.admin_token.get_secret_value().strip()
        if not token and self.admin_token_file is not None:
            try:
                token = self.admin_token_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise Invalid(
                    "the file of the administrator's token cannot be read",
                    remedy="Check KUBELORE_ADMIN_TOKEN_FILE and who may read it.",
                ) from error
        if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
            raise Invalid(
                f"the administrator's token is not set, or is not {MIN_TOKEN} characters or more of plain ASCII",
                remedy="Set KUBELORE_ADMIN_TOKEN or KUBELORE_ADMIN_TOKEN_FILE.",
            )
        return token
