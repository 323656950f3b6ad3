"""Fixtures for every test."""

from __future__ import annotations

import signal

pytest_plugins = ["tests.support.fixtures"]


def pytest_configure() -> None:
    """A run in the background ignores SIGINT, and so would every process under test that a test interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
