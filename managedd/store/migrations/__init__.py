"""Numbered SQL files, applied in order."""

from __future__ import annotations
