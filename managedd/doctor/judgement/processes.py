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
            "install uv where the daemon's PATH finds it (pip install uv); it comes with managedd and lies in its one-file executable",
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


def git(found: str | None) -> Finding:
    """What clones a flow's code."""
    name = "git for runs"
    if found is not None:
        return ok(name, found, found=found)
    return problem(
        name,
        "there is no git in process.path: each run of a flow from a git repository (flow.from_source) fails at its clone step",
        "install git (on Debian and Ubuntu: apt-get install git), or add its directory to process.path",
        found=None,
    )


def package_index(words: str | None, *, has_environment: bool) -> Finding:
    """Whether environments can be made; `words`: why not."""
    name = "package index"
    if words is None:
        return ok(name, "uv finds Prefect there")
    mend = (
        "see the host's way out and its name server; runs.https_proxy for a proxy, runs.index_url for an index of your own, "
        "runs.ca_bundle for its certificate"
    )
    if has_environment:
        told = "runs in an environment that is there go on, those with other pip_packages or another image fail"
        return warning(name, f"uv can't get Prefect from it, and {told}: {words}", mend)
    return problem(name, f"uv can't get Prefect from it, so no environment for runs can be made: {words}", mend)


def limits(held: Collection[str], *, whose: str) -> Finding:
    """Which limits hold for processes: memory, time and the files of a run's own folder always, the others with control groups."""
    name = "limits of processes"
    said = []
    for each in LIMITED:
        how = "control group" if each in held else "watched" if each == "memory" else "unsupported"
        said.append(f"{_WORDS[each]}: {how}")
    shown = f"for {whose}: {', '.join(said)}, time: supervised, files: weighed in the run's own folder"
    facts = {"held": sorted(held), "unsupported": [each for each in ("pids", "cpu") if each not in held]}
    if set(LIMITED) <= set(held):
        return ok(name, shown, **facts)
    return warning(
        name,
        shown,
        "give the daemon control groups of its own, with systemd 254 or newer: systemd/managedd.service does, by Delegate= and "
        "DelegateSubgroup=daemon; from a shell: systemd-run --user -p Delegate=yes -p DelegateSubgroup=daemon managedd serve",
        **facts,
    )
