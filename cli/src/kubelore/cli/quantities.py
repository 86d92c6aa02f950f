"""Amounts as `kubectl top` shows them. Pure."""

from __future__ import annotations

_ROUNDED = {"n": (10**6, "m"), "u": (10**3, "m"), "Ki": (2**10, "Mi")}


def rounded(quantity: str) -> str:
    """Nanocores and kibibytes, in which kubelets measure, in millicores and mebibytes; others as they are."""
    number = quantity.rstrip("nuKi")
    finer = _ROUNDED.get(quantity.removeprefix(number))
    if finer is None or not number.isdecimal():
        return quantity
    divisor, unit = finer
    return f"{-(-int(number) // divisor)}{unit}"
