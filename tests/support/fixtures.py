"""The fixtures over provisioning, and what the markers `docker`, `client` and `browser` mean: there, or skipped, or failed under CI.

Provisioning runs after collection, outside every test's time limit, and only when a chosen test asks for it.
"""

from __future__ import annotations

import contextlib

import pytest

from tests.support.provision import Provisioned, in_ci
from tests.support.provision import provisioned as provisioning

THERE = pytest.StashKey[Provisioned]()
UNTIL_THE_END = pytest.StashKey[contextlib.ExitStack]()


def _asks_for_engine(item: pytest.Item) -> bool:
    return item.get_closest_marker("docker") is not None or "docker_engine" in getattr(item, "fixturenames", ())


def _asks_for_client(item: pytest.Item) -> bool:
    return item.get_closest_marker("client") is not None or "prefect_venv" in getattr(item, "fixturenames", ())


def _asks_for_browser(item: pytest.Item) -> bool:
    return item.get_closest_marker("browser") is not None or "chromium" in getattr(item, "fixturenames", ())


def pytest_collection_finish(session: pytest.Session) -> None:
    """What the chosen tests ask for is there, or the reasons are known."""
    if session.config.option.collectonly:
        return
    engine = any(_asks_for_engine(item) for item in session.items)
    client = any(_asks_for_client(item) for item in session.items)
    browser = any(_asks_for_browser(item) for item in session.items)
    capture = session.config.pluginmanager.getplugin("capturemanager")
    until_the_end = contextlib.ExitStack()
    session.config.stash[UNTIL_THE_END] = until_the_end
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        session.config.stash[THERE] = until_the_end.enter_context(
            provisioning(engine=engine, client=client, browser=browser)
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    """An engine that these tests had started is stopped, unless somebody else uses it."""
    if UNTIL_THE_END in config.stash:
        config.stash[UNTIL_THE_END].close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test whose engine or client is missing goes no further."""
    there = item.config.stash[THERE]
    if _asks_for_engine(item) and there.image is None:
        _missing(there.reason)
    if _asks_for_client(item) and there.prefect_python is None:
        _missing(there.reason)
    if _asks_for_browser(item) and there.browser is None:
        _missing(there.reason)


def _missing(reason: str) -> None:
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def provisioned(pytestconfig: pytest.Config) -> Provisioned:
    """What there is to test with; parts that no chosen test asks for by marker or fixture are None."""
    return pytestconfig.stash[THERE]


@pytest.fixture(scope="session")
def docker_engine(provisioned: Provisioned) -> Provisioned:
    """An engine answers at `docker_host` and has `image`; asking for this is the same as the marker `docker`."""
    return provisioned


@pytest.fixture(scope="session")
def prefect_venv(provisioned: Provisioned) -> Provisioned:
    """`prefect_python` and `prefect_cli` run the real client; asking for this is the same as the marker `client`."""
    return provisioned


@pytest.fixture(scope="session")
def chromium(provisioned: Provisioned) -> str:
    """The path of a Chromium; asking for this is the same as the marker `browser`."""
    assert provisioned.browser is not None
    return provisioned.browser
