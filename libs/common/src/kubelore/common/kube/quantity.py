"""Kubernetes quantities (`100m`, `1.5Gi`, `12e6`): exact values, canonical text, arithmetic.

The rules are those of k8s.io/apimachinery v0.34 `pkg/api/resource`, and the
tests hold this module to a table made with it: a quantity remembers its suffix
family; what is finer than 1n is rounded away from zero to 1n; the binary family
is cut at 2^63-1; the canonical text loses no precision, has no fraction, and the
largest suffix that allows it.

Everything is a whole number of nano units, so sums never round. Two deliberate
differences. Text of over 128 characters or with an exponent beyond ±99 is refused,
so that no quantity costs more than a short one. A decimal beyond 999E keeps the
suffix E (`1000E`), where apimachinery drops the suffix and prints `1`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from enum import Enum
from functools import total_ordering

from kubelore.common.errors import BadRequest

NANO = 10**9
MAX_BINARY = (1 << 63) - 1
MAX_LENGTH = 128
MAX_EXPONENT = 99

_REMEDY = (
    "Write a number with one of n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei "
    "or an exponent behind it, such as 500m, 1.5Gi or 12e6."
)
_TEXT = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]+))?"
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"": 0, "Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {exponent: suffix for suffix, exponent in _BINARY.items()}


class Format(Enum):
    """The suffix family a quantity was written in and is printed in again; named as in apimachinery."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


@total_ordering
class Quantity:
    """A fixed-point number with a suffix family. Immutable; equal and ordered by value alone."""

    __slots__ = ("_format", "_nanos")

    def __init__(self, nanos: int = 0, format: Format = Format.DECIMAL_SI) -> None:
        """`nanos` is the value in units of 1e-9."""
        self._nanos = nanos
        self._format = format

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Read a quantity as the API server does. Raises BadRequest.

        As there, digits may be missing altogether: `Ki` is zero.
        """
        match = _TEXT.fullmatch(text) if 0 < len(text) <= MAX_LENGTH else None
        if match is None:
            shown = text if len(text) <= MAX_LENGTH else text[:40] + "…"
            raise BadRequest(f"{shown!r} is not a quantity.", remedy=_REMEDY)
        fraction = match["fraction"] or ""
        digits = int((match["whole"] + fraction) or "0")
        family, exponent = _read_suffix(match["suffix"] or "", match["exponent"])
        if family is Format.BINARY_SI:
            nanos = _round_up(digits * NANO << exponent, 10 ** len(fraction))
            nanos = min(nanos, MAX_BINARY * NANO)
            if 0 < nanos < NANO:
                family = Format.DECIMAL_SI
        else:
            power = exponent - len(fraction) + 9
            nanos = digits * 10**power if power >= 0 else _round_up(digits, 10**-power)
        return cls(-nanos if match["sign"] == "-" else nanos, family)

    @property
    def value(self) -> Decimal:
        """The exact value."""
        digits, exponent = _without_tens(self._nanos)
        return Decimal(f"{digits}E{exponent - 9}") if digits else Decimal(0)

    @property
    def format(self) -> Format:
        """The suffix family."""
        return self._format

    def __str__(self) -> str:
        """The canonical text."""
        if not self._nanos:
            return "0"
        if self._format is Format.BINARY_SI and abs(self._nanos) >= 1024 * NANO and self._nanos % NANO == 0:
            return _binary_text(self._nanos // NANO)
        digits, exponent = _without_tens(self._nanos)
        exponent -= 9
        surplus = exponent % 3
        if self._format is not Format.DECIMAL_EXPONENT:
            surplus += max(0, exponent - surplus - 18)
        digits *= 10**surplus
        exponent -= surplus
        if self._format is Format.DECIMAL_EXPONENT:
            return f"{digits}e{exponent}" if exponent else str(digits)
        return f"{digits}{_DECIMAL_SUFFIX[exponent]}"

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def __add__(self, other: Quantity) -> Quantity:
        """The sum, in the family of the left side, or of the right side when the left is zero."""
        return Quantity(self._nanos + other._nanos, self._family_with(other))

    def __sub__(self, other: Quantity) -> Quantity:
        """The difference, in the family of the left side, or of the right side when the left is zero."""
        return Quantity(self._nanos - other._nanos, self._family_with(other))

    def __neg__(self) -> Quantity:
        return Quantity(-self._nanos, self._format)

    def __bool__(self) -> bool:
        return bool(self._nanos)

    def __eq__(self, other: object) -> bool:
        return self._nanos == other._nanos if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: Quantity) -> bool:
        return self._nanos < other._nanos

    def __hash__(self) -> int:
        return hash(self._nanos)

    def _family_with(self, other: Quantity) -> Format:
        return self._format if self._nanos else other._format


def _read_suffix(suffix: str, exponent: str | None) -> tuple[Format, int]:
    if exponent is not None:
        power = int(exponent)
        if abs(power) > MAX_EXPONENT:
            raise BadRequest(f"The exponent of a quantity lies beyond ±{MAX_EXPONENT}.", remedy=_REMEDY)
        return Format.DECIMAL_EXPONENT, power
    if suffix in _DECIMAL:
        return Format.DECIMAL_SI, _DECIMAL[suffix]
    return Format.BINARY_SI, _BINARY[suffix]


def _round_up(amount: int, divisor: int) -> int:
    return -(-amount // divisor)


def _without_tens(amount: int) -> tuple[int, int]:
    """The amount without its factors of ten, and how many there were."""
    tens = 0
    while amount and amount % 10 == 0:
        amount //= 10
        tens += 1
    return amount, tens


def _binary_text(amount: int) -> str:
    exponent = 0
    while exponent < 60 and amount % 1024 == 0:
        amount //= 1024
        exponent += 10
    return f"{amount}{_BINARY_SUFFIX[exponent]}"
