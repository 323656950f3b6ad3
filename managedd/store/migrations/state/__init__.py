"""The numbered SQL files of `state.db`."""

from __future__ import annotations
