"""The gateway's own settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, IPvAnyNetwork, SecretStr

from kubelore.common.errors import Invalid
from kubelore.common.settings import CommonSettings

MIN_TOKEN = 16


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
    max_watches: int = Field(default=500, ge=1, description="Watch streams open at once.")

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
