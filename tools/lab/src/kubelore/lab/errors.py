"""What can go wrong with the lab, as types.

`LabUnavailableError` means "not on this machine": a reason to skip, never a bug. `LabError` means that the
lab should have worked and did not.
"""


class LabError(Exception):
    """A part of the lab that should work failed; the message ends with the last lines of its log."""


class LabUnavailableError(LabError):
    """The machine lacks something that the lab needs; the message is one line for a person."""

    def __init__(self, reason: str) -> None:
        self.reason = " ".join(reason.split())
        super().__init__(self.reason)
