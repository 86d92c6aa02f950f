"""What stands in a line: its level, its JSON, and its text without colours. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kubelore.common.contracts.logs import LogLevel

LEVELS: tuple[LogLevel, ...] = ("trace", "debug", "info", "warn", "error", "fatal")
RANKS = {level: rank for rank, level in enumerate(LEVELS)}

LOOKED_AT = 400
"""Bytes at the beginning of a line in which a level is looked for."""
MAX_JSON = 256 * 1024

_WORDS: dict[bytes, LogLevel] = {
    b"trace": "trace",
    b"trc": "trace",
    b"finest": "trace",
    b"finer": "trace",
    b"verbose": "trace",
    b"debug": "debug",
    b"dbg": "debug",
    b"debu": "debug",
    b"fine": "debug",
    b"info": "info",
    b"inf": "info",
    b"information": "info",
    b"informational": "info",
    b"notice": "info",
    b"log": "info",
    b"warn": "warn",
    b"wrn": "warn",
    b"warning": "warn",
    b"error": "error",
    b"err": "error",
    b"eror": "error",
    b"severe": "error",
    b"fatal": "fatal",
    b"ftl": "fatal",
    b"panic": "fatal",
    b"critical": "fatal",
    b"crit": "fatal",
    b"alert": "fatal",
    b"emerg": "fatal",
    b"emergency": "fatal",
    b"dpanic": "fatal",
}
_KEYS = ("level", "severity", "lvl", "log.level", "levelname", "loglevel", "log_level", "severity_text")
_KLOG = re.compile(rb"([IWEF])\d{4} \d\d:\d\d:\d\d")
_KLOG_LEVELS: dict[bytes, LogLevel] = {b"I": "info", b"W": "warn", b"E": "error", b"F": "fatal"}
_KEYED = re.compile(rb"""\b(?:level|lvl|severity|loglevel)=["']?([A-Za-z]+)""")
# Capital words anywhere near the beginning; others only in brackets, before a colon or at the very beginning.
_NAMES = b"|".join(sorted(_WORDS, key=len, reverse=True))
_CAPITAL = re.compile(rb"(?<![A-Za-z0-9_/.-])(" + _NAMES.upper() + rb")(?![A-Za-z0-9_/.-])")
_MARKED = re.compile(
    rb"(?i:\A[\s<\[(]*("
    + _NAMES
    + rb")(?=[\s:>\])|]|\Z)|\[\s*("
    + _NAMES
    + rb")\s*\]|\s("
    + _NAMES
    + rb"):\s)"
)
# CSI and OSC sequences, character sets, and single escapes.
_ANSI = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]+[0-~]|[0-~])"
)

_decode: Any = msgspec.json.Decoder().decode


def without_ansi(text: bytes) -> bytes:
    """A line's text without colours and other terminal sequences."""
    return _ANSI.sub(b"", text) if b"\x1b" in text else text


def json_of(text: bytes) -> dict[str, Any] | None:
    """The object that a line consists of, or None when it is something else."""
    bare = text.strip()
    if not (bare.startswith(b"{") and bare.endswith(b"}")) or len(bare) > MAX_JSON:
        return None
    try:
        found = _decode(bare)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def level_of(text: bytes) -> LogLevel | None:
    """The level that a line says it has, by the customs of common loggers; None where it says none."""
    bare = without_ansi(text[: 2 * LOOKED_AT])
    if bare.lstrip()[:1] == b"{" and (fields := json_of(without_ansi(text))) is not None:
        return level_of_fields(fields)
    beginning = bare[:LOOKED_AT]
    if match := _KLOG.match(beginning):
        return _KLOG_LEVELS[match.group(1)]
    if match := _KEYED.search(beginning):
        return _WORDS.get(match.group(1).lower())
    if match := _CAPITAL.search(beginning) or _MARKED.search(beginning):
        return _WORDS[next(word for word in match.groups() if word).lower()]
    return None


def level_of_fields(fields: dict[str, Any]) -> LogLevel | None:
    """The level of a JSON line: the words of most loggers, or the numbers of pino and bunyan."""
    for key in _KEYS:
        said = fields.get(key)
        if isinstance(said, str):
            return _WORDS.get(said.lower().encode())
        if isinstance(said, int) and not isinstance(said, bool):
            return LEVELS[min(max(said // 10 - 1, 0), 5)] if said >= 10 else None
    log = fields.get("log")
    return level_of_fields(log) if isinstance(log, dict) and "level" in log else None
