"""A browser for the tests of the web pages: Debian's Chromium, driven over its own protocol."""

from __future__ import annotations

import shutil

from tests.support.steps import install_packages

NAMES = ("chromium", "chromium-browser", "google-chrome")
FONTS = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"


def ensure_chromium() -> str:
    """The path of a Chromium that is there. Raises CannotProvisionError."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    install_packages({"chromium": "chromium", FONTS: "fonts-dejavu-core"})
    there = shutil.which("chromium")
    assert there is not None
    return there
