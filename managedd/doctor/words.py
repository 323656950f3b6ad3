"""Amounts in words."""

from __future__ import annotations


def size(number_bytes: float) -> str:
    """`number_bytes` with a unit."""
    amount, unit = float(number_bytes), "B"
    for greater in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, greater
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def processors(count: float) -> str:
    """`count` processors."""
    return f"{count:g} processor" + ("" if count == 1 else "s")


def age(seconds: float) -> str:
    """`seconds` in the unit that people would use."""
    for length, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return f"{max(0, int(seconds))} seconds"
