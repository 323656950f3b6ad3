"""The numbered SQL files of `logs.db`."""

from __future__ import annotations
