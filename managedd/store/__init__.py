"""The embedded store: the only folder that contains SQL."""

from __future__ import annotations
