"""Tokens, sessions and callers as people see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kubelore.gateway.grants import GrantModel, GrantModels

TokenName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$", examples=["ci"])]
LONGEST_TOKEN_S = 366 * 24 * 3600
USUAL_TOKEN_S = 30 * 24 * 3600


class CreateTokenBody(BaseModel):
    """Make a token."""

    model_config = ConfigDict(extra="forbid")

    name: TokenName = Field(description="Whom it acts as; audit and history show it.")
    grants: GrantModels
    expires_in_s: int = Field(USUAL_TOKEN_S, ge=1, le=LONGEST_TOKEN_S, description="Seconds from now.")


class TokenInfo(BaseModel):
    """A token without its secret, which nobody can show again."""

    id: str
    name: str
    subject: str
    grants: list[GrantModel]
    created_by: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = Field(description="To within five minutes.")


class CreatedToken(TokenInfo):
    """A new token."""

    token: str = Field(description="The secret. It is not kept, and not shown again.")


class TokenList(BaseModel):
    """One page of tokens, by id."""

    items: list[TokenInfo]
    total: int
    continue_: str | None = Field(None, alias="continue")


class WhoAmI(BaseModel):
    """Who somebody is, and what was granted to them."""

    subject: str
    credential: str = Field(description="admin, oidc, token:<id> or session:<id>.")
    grants: list[GrantModel]
    expires_at: datetime | None = Field(
        description="When the credential stops working; null when it does not."
    )


class SessionInfo(WhoAmI):
    """The session of a browser. It also ends after 30 minutes without a request, and with what it was opened by."""

    csrf_token: str = Field(description="Send it as X-CSRF-Token with everything but GET.")
