"""Private files on disk: read only when nobody else may, written so that a crash leaves the old or the new.

A writer holds an advisory lock on `<name>.lock` beside the file, so that two
processes that rotate at once do so one after the other, and so that a leftover
of a killed writer can be removed by the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from kubelore.common.errors import KubeloreError

MAX_BYTES = 1024 * 1024
LOCK_TIMEOUT_S = 10.0


class KeyringError(KubeloreError):
    """A keyring file that cannot be used as it is: missing, unreadable, too open, or not a keyring."""

    status = 500
    reason = "KeyringUnusable"


def fingerprint(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file is replaced (inode, mtime in ns, size); None when there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_private(path: Path) -> bytes:
    """The content of a file that only its owner (or, owned by root, its group) can read.

    The rule is PostgreSQL's for its server key: 0600 or less when it is ours,
    0640 or less when it is root's, which is what Kubernetes makes of a mounted
    Secret with an fsGroup. Raises KeyringError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise KeyringError(
            f"There is no keyring file {path}.",
            remedy="Bring it back from your export of the keyrings; on a first start, `kubelore up` makes it.",
        ) from error
    except OSError as error:
        raise KeyringError(
            f"The keyring file {path} cannot be read: {os.strerror(error.errno or errno.EIO)}.",
            remedy="Let the account that runs the service own the file, with mode 0600.",
        ) from error
    try:
        _refuse_open_permissions(path, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise KeyringError(f"The keyring file {path} is over {MAX_BYTES} bytes: it is not a keyring.")
    return content


def _refuse_open_permissions(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyringError(f"{path} is not a regular file.", remedy="Name a keyring file.")
    me = os.geteuid()
    if found.st_uid not in (me, 0) and me != 0:
        raise KeyringError(
            f"The keyring file {path} belongs to another user (uid {found.st_uid}).",
            remedy=f"chown it to uid {me}, with mode 0600.",
        )
    too_open = 0o037 if found.st_uid == 0 and me != 0 else 0o077
    if found.st_mode & too_open:
        raise KeyringError(
            f"Others can read or change the keyring file {path} (mode {stat.S_IMODE(found.st_mode):04o}).",
            remedy=f"chmod 600 {path}, and rotate the keyring if somebody else may have read it.",
        )


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the lock of `path` against other processes and threads. Raises KeyringError after `timeout_s`."""
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeyringError(
            f"The folder {path.parent} cannot be written: {os.strerror(error.errno or errno.EIO)}.",
            remedy="Let the account that runs this own the keyring folder, with mode 0700.",
        ) from error
    try:
        _take(descriptor, path, time.monotonic() + timeout_s)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise KeyringError(
                    f"The keyring {path} is being changed by another process.",
                    remedy="Try again when it has finished.",
                ) from error
            time.sleep(0.02)
        else:
            return


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put `content` at `path` in one step that survives a power cut; call it under `locked`.

    The owner of a file that is replaced is kept, so that a rotation run by root
    does not lock the service out. Raises KeyringError.
    """
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{target.name}.draft")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            _keep_owner(descriptor, target)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        draft.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise KeyringError(
            f"{target} cannot be written: {os.strerror(error.errno or errno.EIO)}.",
            remedy="Check the permissions of the keyring folder and the space on its disk.",
        ) from error


def _keep_owner(descriptor: int, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        before = target.stat()
        if before.st_uid != os.geteuid():
            os.fchown(descriptor, before.st_uid, before.st_gid)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable (POSIX promises it only after a sync of the directory)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
