"""The vocabulary: frozen values the engine thinks in. Standard library only."""

from __future__ import annotations
