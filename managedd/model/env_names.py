"""Names of environment variables: which there may be in a run, and which are the run's own."""

from __future__ import annotations

import re
from typing import Final

ALLOWED: Final = "letters, digits, '_', '.' and '-', not beginning with a digit, up to 255"

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,254}")
_RESERVED: Final = frozenset({
    "PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_CLOUD_API_URL", "PREFECT_CLIENT_CUSTOM_HEADERS",
    # A whole section of settings as one JSON object.
    "PREFECT_API", "PREFECT_CLIENT", "PREFECT_CLOUD",
    # Where a profile could come from.
    "PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH",
    # With these the client takes other defaults for all of the above.
    "PREFECT_TESTING", "PREFECT_TEST_MODE", "PREFECT_UNIT_TEST_MODE",
})  # fmt: skip
_RESERVED_PREFIXES: Final = ("PREFECT__", "PREFECT_TESTING_", "MANAGEDD_")


def is_variable_name(name: str) -> bool:
    """Whether a run may have a variable of that name."""
    return _NAME.fullmatch(name) is not None


def is_reserved(name: str) -> bool:
    """Whether the variable belongs to the run and not to its user.

    The client reads its settings in any case of letters, so case does not matter here either.
    """
    upper = name.upper()
    return upper in _RESERVED or upper.startswith(_RESERVED_PREFIXES)
