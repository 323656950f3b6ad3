"""The engine: the loops. Knows no HTTP, no SQL, no container engine."""

from __future__ import annotations
