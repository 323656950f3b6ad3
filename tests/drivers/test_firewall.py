"""The wall around runs: which rules it is of, that the kernel takes them, and what happens where it can't stand."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from managedd.drivers import docker_guard, firewall, nftables
from managedd.drivers.docker_guard import Guard, Names
from managedd.drivers.docker_spec import DockerSettings
from managedd.drivers.firewall import METADATA, Wall, table_of
from managedd.drivers.nftables import NftablesError
from managedd.errors import ManagedError
from tests.support.provision import in_ci

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from managedd.drivers.nftables import Network

pytestmark = pytest.mark.anyio
CLONE_NEWNET = 0x40000000
NO_METADATA = ["no machine's credentials"] * len(METADATA)
CREDENTIALS = (
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42", "100.100.100.200",
    "168.63.129.16", "192.0.0.192",
)  # fmt: skip
"""Where AWS, its container services, Google, Scaleway, Alibaba, Azure and Oracle have them."""


def wall(**changes: Any) -> Wall:
    return Wall(**{"bridge": "lo", "ways": (("172.18.0.1", 4201),), **changes})


def comments(built: Wall) -> dict[str, list[str]]:
    return {chain.name: [rule.comment for rule in chain.rules] for chain in table_of("t", built).chains}


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


# Which rules


def test_of_the_host_only_the_ways_and_the_names_are_open() -> None:
    told = comments(wall(ways=(("172.18.0.1", 4201), (None, 5432)), name_servers=("192.0.2.53",)))
    assert told["to_host"] == [
        "answers", "errors", "a way in", "a way in", "names", "names", "IPv6 itself", "nothing else of this host",
    ]  # fmt: skip
    assert told["to_runs"] == ["answers", "errors", "nothing else"]


def test_beyond_the_host_all_is_open_but_other_runs_redirected_ports_and_metadata() -> None:
    told = comments(wall())["to_world"]
    assert told == [
        "no other run",
        "answers",
        "errors",
        "no port of this host that leads elsewhere",
        "a way out",
        *NO_METADATA,
    ]


@pytest.mark.parametrize("address", CREDENTIALS)
def test_where_a_cloud_has_a_machines_credentials_nobody_comes(address: str) -> None:
    assert any(ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in METADATA)


def test_an_allow_list_comes_after_metadata_and_closes_the_rest() -> None:
    told = comments(wall(egress=networks("10.0.0.0/8", "2001:db8::/32")))["to_world"]
    assert told[-3 - len(METADATA) :] == [*NO_METADATA, *["docker.egress_allow"] * 2, "nothing else"]
    assert comments(wall(egress=()))["to_world"][-1:] == ["nothing else"]


def test_an_open_host_is_open_and_metadata_still_not() -> None:
    told = comments(wall(is_host_open=True))
    assert told["to_host"][:3] == ["answers", "errors", "docker.host_allow"]
    assert told["to_world"] == ["no other run", "answers", "errors", "a way out", *NO_METADATA]


@pytest.mark.parametrize(
    "changes",
    [
        {"bridge": "br-0"},
        {"ways": (("172.18.0.1", 4202),)},
        {"ways": (("172.18.0.2", 4201),)},
        {"ways": ((None, 4201),)},
        {"egress": ()},
        {"name_servers": ("192.0.2.53",)},
        {"is_host_open": True},
    ],
)
def test_another_wall_is_known_by_its_first_comment(changes: dict[str, Any]) -> None:
    def first(built: Wall) -> str:
        return comments(built)["input"][0]

    assert first(wall()) == first(wall()) != first(wall(**changes))
    assert firewall.bridge_of([first(wall(**changes))]) == changes.get("bridge", "lo")
    assert firewall.bridge_of(["runs on time", "something"]) is None


# The kernel


def apart(body: Callable[[], None]) -> None:
    """`body` ran in a network of its own, where no daemon's rules are and nobody tidies."""
    if os.geteuid() != 0 and not in_ci():
        pytest.skip("only root can make a network")
    raised: list[BaseException] = []

    def run() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            body()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def test_the_kernel_takes_every_rule_and_tells_it_back() -> None:
    built = wall(
        name_servers=("192.0.2.53", "2001:db8::53"),
        egress=networks("10.0.0.0/8", "192.0.2.7/32", "2001:db8::/33", "::/0", "0.0.0.0/0"),
        ways=(("172.18.0.1", 4201), ("::1", 1), (None, 65535)),
    )

    def body() -> None:
        assert firewall.put_up("managedd-a", built)
        assert nftables.comments("managedd-a") == [each for told in comments(built).values() for each in told]
        assert not firewall.put_up("managedd-a", built)
        assert firewall.put_up("managedd-a", wall())
        assert nftables.tables() == ["managedd-a"]
        assert firewall.take_down("managedd-a")
        assert not firewall.take_down("managedd-a")
        assert (nftables.tables(), nftables.comments("managedd-a")) == ([], [])

    apart(body)


def test_a_wall_of_many_parts_is_put_up_and_read_back() -> None:
    many = networks(*(f"10.{n // 256}.{n % 256}.0/24" for n in range(500)))

    def body() -> None:
        assert firewall.put_up("managedd-many", wall(egress=many))
        assert nftables.comments("managedd-many").count("docker.egress_allow") == 500
        assert not firewall.put_up("managedd-many", wall(egress=many))

    apart(body)


def test_what_somebody_has_taken_out_is_put_back() -> None:
    def body() -> None:
        firewall.put_up("managedd-a", wall())
        # As `nft flush ruleset` does it.
        nftables.apply(nftables.deleting("managedd-a"))
        assert firewall.put_up("managedd-a", wall())
        # As `nft flush table` does it: the chains stay, without a rule.
        nftables.apply(nftables.deleting("managedd-a"))
        empty = nftables.Table("managedd-a", (nftables.Chain("input", (), "input", -5),))
        nftables.apply(nftables.replacing(empty))
        assert firewall.put_up("managedd-a", wall())

    apart(body)


def test_walls_whose_network_is_gone_are_tidied_away_and_others_stay() -> None:
    def body() -> None:
        firewall.put_up("managedd-here", wall())
        firewall.put_up("managedd-gone", wall(bridge="br-gone"))
        nftables.apply(nftables.replacing(nftables.Table("somebody-else", ())))
        nftables.apply(nftables.replacing(nftables.Table("managedd-not-ours", ())))
        assert firewall.tidy() == ["managedd-gone"]
        assert sorted(nftables.tables()) == ["managedd-here", "managedd-not-ours", "somebody-else"]

    apart(body)


def test_rules_that_the_kernel_refuses_change_nothing() -> None:
    def body() -> None:
        firewall.put_up("managedd-a", wall())
        before = nftables.comments("managedd-a")
        jumps_nowhere = nftables.Chain("input", (nftables.rule("x", nftables.jump("nowhere")),), "input", -5)
        with pytest.raises(NftablesError):
            nftables.apply(nftables.replacing(nftables.Table("managedd-a", (jumps_nowhere,))))
        assert nftables.comments("managedd-a") == before

    apart(body)


# The guard


HERE = {"Id": "n" * 64, "Name": "managedd-x", "IPAM": {"Config": [{"Gateway": "172.18.0.1"}]}}
ELSEWHERE = {**HERE, "IPAM": {"Config": [{"Gateway": "203.0.113.1"}]}}


class Kernel:
    """What the guard did to the kernel, or why it could not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, error: int | None = None) -> None:
        self.walls: list[Wall] = []
        self.taken_down: list[str] = []
        self._error = error
        monkeypatch.setattr(docker_guard, "bridge_of", lambda network: None if network is ELSEWHERE else "br-n")
        monkeypatch.setattr(firewall, "put_up", self._put_up)
        monkeypatch.setattr(firewall, "take_down", self.taken_down.append)
        monkeypatch.setattr(firewall, "tidy", list)
        monkeypatch.setattr(firewall, "name_servers", lambda configured: configured)

    def _put_up(self, name: str, built: Wall) -> bool:
        if self._error is not None:
            raise NftablesError(self._error)
        self.walls.append(built)
        return True


async def test_the_guard_lets_through_what_the_operator_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    known = {"proxy.example": ["192.0.2.1", "2001:db8::1"], "git.example": ["192.0.2.9"], "unknown.example": []}
    monkeypatch.setattr(docker_guard, "addresses_of", lambda name: known.get(name, [name]))
    settings = DockerSettings(
        http_proxy="http://u:p@proxy.example:3128",
        package_index_url="https://192.0.2.4/simple",
        api_url="https://192.0.2.5/api",
        host_allow=((None, 5432),),
        egress_allow=("10.0.0.0/8", "git.example", "unknown.example"),
    )
    found = await Guard("instance", settings).stand(HERE, [("172.18.0.1", 4201)])
    assert found.holds
    [built] = kernel.walls
    assert built.ways == (
        ("172.18.0.1", 4201), (None, 5432), ("192.0.2.5", 443), ("192.0.2.1", 3128), ("2001:db8::1", 3128), ("192.0.2.4", 443),
    )  # fmt: skip
    assert built.egress == networks("10.0.0.0/8", "192.0.2.9/32")


async def test_an_address_that_a_name_has_no_longer_stays_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now, answers = [1000.0], [["192.0.2.1"], ["192.0.2.2"], [], ["192.0.2.3"]]
    monkeypatch.setattr(docker_guard.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(docker_guard, "addresses_of", lambda name: answers.pop(0))
    names = Names()
    assert await names.look_up(["a"]) == {"a": ("192.0.2.1",)}
    assert await names.look_up(["a"]) == {"a": ("192.0.2.1",)}
    now[0] += docker_guard.ASK_AGAIN_SECONDS
    assert await names.look_up(["a"]) == {"a": ("192.0.2.1", "192.0.2.2")}
    now[0] += docker_guard.FORGET_SECONDS + 1
    # A resolver that says nothing ends nothing.
    assert await names.look_up(["a"]) == {"a": ("192.0.2.1", "192.0.2.2")}
    now[0] += docker_guard.ASK_AGAIN_SECONDS
    assert await names.look_up(["a"]) == {"a": ("192.0.2.3",)}


@pytest.mark.parametrize(("network", "error", "reason"), [(ELSEWHERE, None, "elsewhere"), (HERE, 1, "CAP_NET_ADMIN")])
async def test_where_no_wall_can_stand_it_is_said_and_demands_are_refused(
    monkeypatch: pytest.MonkeyPatch, network: dict[str, Any], error: int | None, reason: str
) -> None:
    Kernel(monkeypatch, error=error)
    found = await Guard("instance", DockerSettings()).stand(network, [])
    assert (found.holds, reason in found.reason, bool(found.mend)) == (False, True, True)
    for demand in (DockerSettings(firewall="require"), DockerSettings(egress_allow=())):
        with pytest.raises(ManagedError, match="nothing is started") as refused:
            await Guard("instance", demand).stand(network, [])
        assert reason in refused.value.message


async def test_switched_off_it_takes_down_what_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    found = await Guard("aa-bb", DockerSettings(firewall="off")).stand(HERE, [])
    assert (found.holds, kernel.taken_down, kernel.walls) == (False, ["managedd-aabb"], [])


def test_name_servers_are_those_that_the_engine_hands_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolv, engine = tmp_path / "resolv.conf", tmp_path / "daemon.json"
    resolv.write_text("search x\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver\n")
    monkeypatch.setattr(firewall, "_RESOLV_CONF", (resolv, tmp_path / "none"))
    monkeypatch.setattr(firewall, "_ENGINE_SETTINGS", engine)
    assert firewall.name_servers(()) == ("192.0.2.53", "fe80::1")
    engine.write_text('{"dns": ["172.17.0.1"]}')
    assert firewall.name_servers(()) == ("172.17.0.1", "192.0.2.53", "fe80::1")
    engine.write_text("[]")
    assert firewall.name_servers(("198.51.100.1",)) == ("198.51.100.1",)
