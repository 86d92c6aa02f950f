"""Where this person has logged in: URLs and tokens by name, in one file that only they can read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from kubelore.common.errors import Invalid, NotFound


@dataclass(frozen=True)
class Login:
    """One Kubelore, and the token it takes from this person."""

    url: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Logins:
    """All of them, and which one commands go to when nothing is said."""

    current: str = ""
    known: dict[str, Login] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Logins:
        """What is stored; nothing when there is no file. Raises Invalid for one that cannot be read."""
        path = logins_file()
        try:
            said = json.loads(path.read_text())
            known = {name: Login(**login) for name, login in said["targets"].items()}
            return cls(str(said["current"]), known)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise Invalid(f"{path} cannot be read", remedy="Remove it and log in again.") from error

    def save(self) -> None:
        """Replace the file, readable by its owner only."""
        from kubelore.stack.private_files import write_private

        targets = {name: asdict(login) for name, login in sorted(self.known.items())}
        path = logins_file()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps({"current": self.current, "targets": targets}, indent=2) + "\n")

    def get(self, name: str) -> Login:
        """The login of a name. Raises NotFound."""
        if name not in self.known:
            known = f"There are {', '.join(sorted(self.known))}." if self.known else "There is none."
            raise NotFound(
                f"there is no login named {name!r}", remedy=f"{known} `kubelore login URL` adds one."
            )
        return self.known[name]

    def of_url(self, url: str) -> Login | None:
        """A login at this very URL: its token goes nowhere else."""
        return next((login for login in self.known.values() if login.url == url), None)

    def having(self, name: str, login: Login) -> Logins:
        """With a login that commands go to from now on."""
        return replace(self, current=name, known={**self.known, name: login})

    def without(self, name: str) -> Logins:
        """Without a login. Raises NotFound."""
        self.get(name)
        known = {other: login for other, login in self.known.items() if other != name}
        return Logins("" if self.current == name else self.current, known)


def logins_file() -> Path:
    """In XDG_CONFIG_HOME, else in ~/.config."""
    folder = os.environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "kubelore" / "targets.json"


def name_of(url: str) -> str:
    """How a login is called when nothing is said: by its host, and its port where that is not the usual one."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise Invalid(f"{url!r} is not the address of a Kubelore", remedy="Write https://name.")
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
