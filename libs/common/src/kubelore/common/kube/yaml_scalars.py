"""What an unquoted YAML word means to Kubernetes, and which strings therefore need quotes.

The rules are those of sigs.k8s.io/yaml v1.6 (go.yaml.in/yaml/v2), which kubectl
and the API server read with. They are neither YAML 1.1 nor 1.2: `yes`, `on` and
`y` are booleans, `0644` is octal, `1_000` is 1000, `08` is 8, timestamps stay
strings, and base-60 numbers are strings but are printed in quotes.
"""

from __future__ import annotations

import re
from calendar import monthrange
from decimal import Decimal

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], True),
    **dict.fromkeys(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], False),
    **dict.fromkeys(["", "~", "null", "Null", "NULL"], None),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], float("nan")),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], float("inf")),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], float("-inf")),
}
_PLAIN_START = frozenset("abcdeghijklmpqrsuvwxzABCDEGHIJKLMPQRSUVWXZ/_")
"""A word that starts so is a string, as nearly every word of a manifest does."""

_PREFIXED = re.compile(
    r"(?P<sign>[-+]?)0(?:[xX](?P<hex>[0-9a-fA-F]+)|[bB](?P<bin>[01]+)|[oO]?(?P<oct>[0-7]+))"
)
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_TIMESTAMP = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
    r"(?:[Tt](?P<time>[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2})(?:[.,][0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})"
    r"| (?P<spaced>[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2})(?:[.,][0-9]+)?)?"
)


def resolve(text: str) -> Scalar:
    """The value of an unquoted scalar.

    An integer may lie outside 64 bits and a float may be infinite or no number:
    JSON has no place for those, so that the caller refuses them.
    """
    if not text:
        return None
    if text[0] in _PLAIN_START:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "0123456789+-.":
        return _number(text)
    return text


def needs_quotes(text: str) -> bool:
    """Whether the string, printed without quotes, would be read as something else by some YAML reader."""
    if not text:
        return True
    if text[0] in _PLAIN_START:
        return False
    if text == "<<" or not isinstance(resolve(text), str):
        return True
    return text[0] in "0123456789+-" and (is_timestamp(text) or _BASE_60.fullmatch(text) is not None)


def is_timestamp(text: str) -> bool:
    """Whether go-yaml takes the text for a point in time or a date."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return False
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    if not (1 <= month <= 12 and 1 <= day <= monthrange(year or 4, month)[1]):
        return False
    hour, minute, second = map(int, (match["time"] or match["spaced"] or "0:0:0").split(":"))
    return hour < 24 and minute < 60 and second < 60


def float_text(value: float) -> str:
    """A float as Go prints it (`strconv.FormatFloat(value, 'g', -1, 64)`); whole ones without an exponent."""
    if value.is_integer() and -(1 << 63) <= value < 1 << 64:
        return str(int(value))
    sign, digits, power = Decimal(repr(value)).as_tuple()
    figures = "".join(map(str, digits)).rstrip("0")
    exponent = len(digits) + int(power) - 1
    if -4 <= exponent < 6:
        return format(Decimal(repr(value)), "f")
    mantissa = figures[0] + ("." + figures[1:] if len(figures) > 1 else "")
    return f"{'-' * sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _number(text: str) -> Scalar:
    if text[0] == ".":
        return _float(text) if _FLOAT.fullmatch(text) else text
    plain = text.replace("_", "") if "_" in text else text
    if "0" in plain[:2] and (match := _PREFIXED.fullmatch(plain)):
        return _prefixed(match)
    if _DECIMAL.fullmatch(plain) and len(plain) <= 309:
        return int(plain)
    if _FLOAT.fullmatch(plain):
        value = _float(plain)
        return text if isinstance(value, str) else value
    return text


def _prefixed(match: re.Match[str]) -> int:
    for group, base in (("hex", 16), ("bin", 2), ("oct", 8)):
        if digits := match[group]:
            return -int(digits, base) if match["sign"] == "-" else int(digits, base)
    raise AssertionError("one of the groups matched")


def _float(text: str) -> Scalar:
    value = float(text)
    return text if value in (float("inf"), float("-inf")) else value
