"""What a run runs in. Knows only the model and the errors."""

from __future__ import annotations
