"""Filter models, one file per resource; data only."""

from __future__ import annotations
