"""Prefect's vocabulary on the wire, as pydantic models without behaviour."""

from __future__ import annotations
