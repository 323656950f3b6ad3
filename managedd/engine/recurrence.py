"""When a schedule fires, as the scheduler knows it.

The functions live in `orchestration/recurrence.py`, because the api checks new schedules with them too and may not import
the engine.
"""

from __future__ import annotations

from managedd.orchestration.recurrence import occurrences, validate

__all__ = ["occurrences", "validate"]
