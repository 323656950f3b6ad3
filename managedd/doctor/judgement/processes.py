"""Runs as processes of this host: what they need, and what nobody holds back from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from managedd.doctor.finding import Finding, note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Collection

    from managedd.drivers.process_probe import Needs

LIMITED = ("memory", "pids", "cpu")
_WORDS = {"memory": "memory", "pids": "processes", "cpu": "processor time"}


def isolation(*, trusted: bool) -> Finding:
    """What nobody may be in doubt about."""
    return note(
        "isolation",
        "runs are processes of the daemon's user: nothing isolates them from the host, from the daemon, or from each other"
        + (" (process.trusted is set)" if trusted else ""),
        "install a container engine and restart the daemon, if not everybody who may start a run may do what the daemon's user may do",
    )


def installer(needs: Needs) -> Finding:
    """What makes the environments of runs."""
    name = "installer"
    if needs.uv is None:
        return problem(
            name,
            needs.uv_words or "uv does not say its version",
            "install managedd anew: uv comes with it",
            version=None,
        )
    return ok(name, f"uv {needs.uv}", version=needs.uv)


def python(needs: Needs, *, configured: str | None) -> Finding:
    """From which Python they are made."""
    name = "python for runs"
    if needs.image_words is not None:
        return problem(
            name,
            f"runs.image: {needs.image_words}",
            "name one of these images, or install a container engine",
            found=None,
        )
    if needs.python is not None:
        return ok(name, needs.python, found=needs.python)
    if configured is not None and configured == needs.python_wanted:
        return problem(
            name,
            f"process.python = {configured!r} is no Python that could be found",
            "set process.python to one that is there, or to none",
            found=None,
        )
    return note(
        name,
        f"this host has no Python {needs.python_wanted}: the first run downloads one",
        "install it, if runs shall not",
        found=None,
    )


def limits(held: Collection[str], *, whose: str) -> Finding:
    """Which limits hold for processes: memory and time always, the others with control groups."""
    name = "limits of processes"
    said = []
    for each in LIMITED:
        how = "control group" if each in held else "watched" if each == "memory" else "unsupported"
        said.append(f"{_WORDS[each]}: {how}")
    shown = f"for {whose}: {', '.join(said)}, time: supervised, disk: unsupported"
    facts = {"held": sorted(held), "unsupported": [each for each in ("pids", "cpu") if each not in held] + ["disk"]}
    if set(LIMITED) <= set(held):
        return ok(name, shown, **facts)
    return warning(
        name,
        shown,
        "give the daemon control groups of its own: systemd/managedd.service does, with Delegate=yes and DelegateSubgroup=daemon; from a shell: "
        "systemd-run --user --scope --property=Delegate=yes",
        **facts,
    )
