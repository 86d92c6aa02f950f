"""What a restart takes over from the start before: ports, passwords, and which keyrings must be there."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kubelore.common.errors import Invalid, Unavailable
from kubelore.stack.layout import DataDirectory
from kubelore.stack.ports import free_port, ports_are_free
from kubelore.stack.private_files import write_private

_TOKEN_VARIABLE = "KUBELORE_ADMIN_TOKEN"  # noqa: S105 - the name of the variable
_SHORTEST_TOKEN = 16


@dataclass
class Kept:
    """Ports by name, passwords by user, purposes with a keyring, and hashes of onboarded demo kubeconfigs."""

    ports: dict[str, int] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    purposes: list[str] = field(default_factory=list)
    demo: dict[str, str] = field(default_factory=dict)
    was_ready: bool = False
    """Whether a start ever succeeded: the first one that does has more to say."""

    @classmethod
    def load(cls, directory: DataDirectory) -> Kept:
        """What the last start left; nothing at the first one. Raises `Invalid` for a damaged file."""
        try:
            return cls(**json.loads(directory.kept.read_text()))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError) as error:
            raise Invalid(
                f"{directory.kept} is damaged: {error}",
                remedy="Put it back from a backup: it holds the ports and the passwords of the servers.",
            ) from error

    def save(self, directory: DataDirectory) -> None:
        """Keep it for the next start (0600)."""
        write_private(directory.kept, json.dumps(asdict(self), indent=2))

    def password(self, user: str) -> str:
        """The user's password, made at first use."""
        return self.passwords.setdefault(user, secrets.token_urlsafe(24))

    def port(self, name: str, wanted: int | None = None, *, count: int = 1) -> int:
        """The wanted port; else the one of last time if it is free, else a free one.

        With `count`, the first of so many in a row. Raises `Unavailable` when the wanted one is taken.
        """
        if wanted is not None:
            if not ports_are_free(wanted, count):
                last = f" to {wanted + count - 1}" if count > 1 else ""
                raise Unavailable(
                    f"port {wanted}{last} is taken", remedy="Name another, or none for a free one."
                )
            self.ports[name] = wanted
        elif name not in self.ports or not ports_are_free(self.ports[name], count):
            self.ports[name] = free_port(count=count)
        return self.ports[name]


def admin_token(path: Path) -> str:
    """The token in force, kept in `path` (0600): KUBELORE_ADMIN_TOKEN, else the one kept, else a new one.

    Raises `Invalid` for a token that is too short or not one printable word.
    """
    given = os.environ.get(_TOKEN_VARIABLE, "")
    kept = path.read_text().strip() if path.exists() else ""
    token = given or kept or secrets.token_urlsafe(32)
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        source = _TOKEN_VARIABLE if given else str(path)
        raise Invalid(
            f"{source} is no usable token",
            remedy=f"Use {_SHORTEST_TOKEN} or more letters and digits, without spaces.",
        )
    if token != kept:
        write_private(path, token + "\n")
    return token
