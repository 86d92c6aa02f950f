"""Grants as people write them: in the body of a request, and in the settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kubelore.common.authz import EVERYTHING, MAX_GLOBS, MAX_GRANTS, Grant, Right, Role

Glob = Annotated[str, Field(pattern=r"^[a-z0-9*?](?:[-a-z0-9*?]{0,61}[a-z0-9*?])?$")]
Globs = Annotated[list[Glob], Field(min_length=1, max_length=MAX_GLOBS)]


class GrantModel(BaseModel):
    """What somebody may do where; `*` and `?` match as in file names."""

    model_config = ConfigDict(extra="forbid")

    role: Role = Field(
        description="viewer reads, operator writes as Kubernetes' `edit`, admin writes everything."
    )
    rights: list[Right] = Field([], max_length=3, description="What no role contains.")
    clusters: Globs = Field([EVERYTHING], examples=[["prod-*"]])
    namespaces: Globs = Field(
        [EVERYTHING], description="Only `*` reaches what lies in no namespace.", examples=[["team-*"]]
    )

    def grant(self) -> Grant:
        """The same for the matrix."""
        return Grant(
            role=self.role,
            rights=tuple(dict.fromkeys(self.rights)),
            clusters=tuple(self.clusters),
            namespaces=tuple(self.namespaces),
        )


GrantModels = Annotated[list[GrantModel], Field(min_length=1, max_length=MAX_GRANTS)]
