"""The store on real SQLite."""

from __future__ import annotations
