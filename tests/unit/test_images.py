"""Which texts name images: one grammar for settings, job variables and the engine's address."""

from __future__ import annotations

import pytest

from managedd.model.images import is_image_reference


@pytest.mark.parametrize(
    "image",
    [
        "prefecthq/prefect:3-latest",
        "ubuntu",
        "localhost:5000/a/b_c:v1.2-x",
        "Registry.Example.com/a__b/c",
        "ghcr.io/a/b@sha256:" + "0" * 64,
    ],
)
def test_image_names(image: str) -> None:
    assert is_image_reference(image)


@pytest.mark.parametrize(
    "image",
    [
        "",
        "../containers/x",
        "a/../b",
        "a b",
        "a?x=1",
        "a#b",
        "Upper",
        "a/Upper",
        "a:tag:tag",
        "http://x/y",
        "a\n",
        "/a",
        "a" * 600,
    ],
)
def test_what_is_no_image_name(image: str) -> None:
    assert not is_image_reference(image)
