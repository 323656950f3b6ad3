"""Which texts name images: one grammar for settings, job variables and the engine's address."""

from __future__ import annotations

import pytest

from managedd.model.images import is_allowed, is_image_reference


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


OFFICIAL = ("prefecthq/prefect:*", "prefecthq/prefect@*")


@pytest.mark.parametrize(
    "image",
    [
        "prefecthq/prefect",
        "prefecthq/prefect:3-latest",
        "docker.io/prefecthq/prefect:3-python3.12",
        "index.docker.io/prefecthq/prefect",
        "prefecthq/prefect@sha256:" + "0" * 64,
        "prefecthq/prefect:3.8.8@sha256:" + "0" * 64,
    ],
)
def test_an_image_is_allowed_in_each_of_its_spellings(image: str) -> None:
    assert is_allowed(image, OFFICIAL)


@pytest.mark.parametrize(
    "image",
    [
        "ghcr.io/prefecthq/prefect:3-latest",
        "evil/prefecthq/prefect:3-latest",
        "prefecthq/prefect-dev:3-latest",
        "prefecthq/prefect2:3",
        "localhost:5000/prefecthq/prefect:3",
        "ubuntu",
    ],
)
def test_another_image_is_not(image: str) -> None:
    assert not is_allowed(image, OFFICIAL)


def test_patterns_pin_and_open() -> None:
    pinned = ("ghcr.io/a/b@sha256:" + "0" * 64,)
    assert is_allowed("ghcr.io/a/b@sha256:" + "0" * 64, pinned)
    assert not is_allowed("ghcr.io/a/b@sha256:" + "1" * 64, pinned)
    assert not is_allowed("ghcr.io/a/b:latest", pinned)
    assert is_allowed("library/python:3.12", ("python:*",))
    assert is_allowed("ghcr.io/team/anything:1", ("ghcr.io/team/*",))
    assert not is_allowed("ghcrXio/team/anything:1", ("ghcr.io/team/*",)), "a dot is a dot"
