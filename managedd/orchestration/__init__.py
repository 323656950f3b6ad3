"""The state rules: what a run may become."""

from __future__ import annotations
