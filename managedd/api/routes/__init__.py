"""One file per tag: thin typed functions."""

from __future__ import annotations
