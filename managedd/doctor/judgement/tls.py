"""The clients' listener's certificate: how long it lasts, and who may read its key."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from managedd.doctor.finding import Finding, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

CERTIFICATE = "certificate"
SOON_DAYS = 14
_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP


def certificate(ends_at: datetime, names: Sequence[str], *, now: datetime, key: Path, key_mode: int) -> Finding:
    """A certificate that works today."""
    days = (ends_at - now).total_seconds() / 86_400
    shown = f"for {', '.join(names) or 'no name'}, until {ends_at:%Y-%m-%d %H:%M} UTC"
    facts = {"ends_at": ends_at.isoformat(), "days_left": round(days, 1), "names": list(names)}
    if not names:
        return problem(
            CERTIFICATE,
            f"{shown}: clients look for the host's name in subjectAltName, and there is none",
            "have it made anew with the name, or the address, that clients use",
            **facts,
        )
    if stat.S_IMODE(key_mode) & _OTHERS:
        return warning(
            CERTIFICATE,
            f"{key} has mode {stat.S_IMODE(key_mode):04o}: others than the daemon's user can read or change the key",
            f"chmod 600 {key}, and have the certificate made anew if others were here",
            **facts,
        )
    if days < SOON_DAYS:
        return warning(
            CERTIFICATE,
            f"{shown}: that is {max(days, 0):.1f} days from now",
            "renew it, put the files in place of the old ones, then systemctl reload managedd (SIGHUP): open connections stay",
            **facts,
        )
    return ok(CERTIFICATE, shown, **facts)
