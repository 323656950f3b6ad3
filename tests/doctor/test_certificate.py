"""What the doctor says of the clients' certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from managedd.config import ServerSection
from managedd.doctor.checks import host
from managedd.doctor.examination import NotApplicable
from managedd.doctor.finding import Level
from managedd.doctor.judgement import tls
from managedd.errors import ManagedError
from tests.doctor.test_checks import patient_of
from tests.support.certificates import Authority, Certificate

NOW = datetime(2026, 11, 1, tzinfo=UTC)
KEY = Path("/etc/managedd/tls.key")


@pytest.mark.parametrize(
    ("days", "names", "mode", "level"),
    [
        (90, ["prefect.example"], 0o600, Level.OK),
        (90, ["prefect.example"], 0o440, Level.OK),
        (90, ["prefect.example"], 0o644, Level.WARNING),
        (13, ["prefect.example"], 0o600, Level.WARNING),
        (90, [], 0o600, Level.PROBLEM),
    ],
)
def test_a_certificate_that_works_is_judged(days: int, names: list[str], mode: int, level: Level) -> None:
    found = tls.certificate(NOW + timedelta(days=days), names, now=NOW, key=KEY, key_mode=0o100000 | mode)
    assert (found.level, found.facts["days_left"]) == (level, days)


async def look(tmp_path: Path, made: Certificate) -> Level:
    made.key.chmod(0o600)
    patient = patient_of(tmp_path)
    server = ServerSection(tls_certificate=made.chain, tls_key=made.key)
    patient.settings = patient.settings.model_copy(update={"server": server})
    (found,) = await host.certificate(patient)
    return found.level


@pytest.mark.anyio
async def test_it_is_looked_at_as_the_daemon_reads_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert await look(tmp_path, authority.certificate("192.0.2.1", days=(-1, 30))) is Level.OK
    assert await look(tmp_path, authority.certificate("192.0.2.1", days=(-1, 5))) is Level.WARNING
    with pytest.raises(ManagedError, match="has expired"):
        await look(tmp_path, authority.certificate("192.0.2.1", days=(-2, -1)))


@pytest.mark.anyio
async def test_without_one_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable):
        await host.certificate(patient_of(tmp_path))
