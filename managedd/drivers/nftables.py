"""The kernel's packet filter, nf_tables, spoken to over netlink: no program is needed, only the right to administer the network.

A table here is one daemon's own: no rule of anybody else stands in it, and what it drops nobody lets through again. It is put in place as a
whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
TIMEOUT_SECONDS: Final = 5.0
COMMENT_MAX_BYTES: Final = 127
_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_ERROR, _DONE = 0x2, 0x3
_REQUEST, _ACK, _DUMP, _CREATE, _APPEND = 0x1, 0x4, 0x300, 0x400, 0x800
_NEW_TABLE, _GET_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE, _GET_RULE = 0, 1, 2, 3, 6, 7
_INET: Final = 1
"""The family that sees both versions of the Internet Protocol."""
_NESTED: Final = 0x8000
_REGISTER: Final = 1
_EQUAL, _NOT_EQUAL, _AT_LEAST, _AT_MOST = 0, 1, 5, 3
_VERDICT_DROP, _VERDICT_ACCEPT, _VERDICT_JUMP = 0, 1, -3
_BY_HOST: Final = 2
_ADMINISTRATIVELY_PROHIBITED: Final = 3
HOOKS: Final = {"input": 1, "forward": 2}
TCP, UDP, ICMPV6 = 6, 17, 58


class NftablesError(Exception):
    """The kernel did not take the rules; the text says why in the operator's words."""

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS.get(number) or f"the kernel's packet filter refuses: {os.strerror(number)}")
        self.number = number


_NO_KERNEL: Final = "the kernel has no nf_tables packet filter"
_WORDS: Final = {
    errno.EPERM: "the daemon may not set the rules of a firewall (it needs CAP_NET_ADMIN)",
    errno.EACCES: "the daemon may not set the rules of a firewall (it needs CAP_NET_ADMIN)",
    errno.EOPNOTSUPP: _NO_KERNEL,
    errno.EPROTONOSUPPORT: _NO_KERNEL,
    errno.EAFNOSUPPORT: _NO_KERNEL,
    errno.ENOENT: "the kernel lacks a part of its packet filter (modules nft_ct and nft_reject_inet)",
    errno.EINVAL: "the kernel's packet filter is too old for these rules",
    errno.ETIMEDOUT: "the kernel's packet filter does not answer",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches and a verdict, encoded, and what it is for."""

    comment: str
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in their order; with a hook, packets come to it by themselves."""

    name: str
    rules: tuple[Rule, ...]
    hook: str | None = None
    """`input`: packets for this host; `forward`: those that pass through it."""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """All chains of one owner."""

    name: str
    chains: tuple[Chain, ...]

    @property
    def digest(self) -> str:
        """The same for the same rules."""
        digest = hashlib.sha256()
        for chain in self.chains:
            digest.update(f"{chain.name} {chain.hook} {chain.priority} {len(chain.rules)}\n".encode())
            for rule in chain.rules:
                digest.update(rule.comment.encode() + b"\0" + b"".join(rule.parts) + b"\n")
        return digest.hexdigest()[:16]


# --- what a rule is made of --------------------------------------------------------------------------------------------


def rule(comment: str, *parts: Sequence[bytes]) -> Rule:
    """The rule that matches what every part matches; the last part is its verdict."""
    return Rule(comment, tuple(each for part in parts for each in part))


def comes_from(interface: str) -> list[bytes]:
    """The packet came in over that interface."""
    return [_load("meta", (1, _u32(_REGISTER)), (2, _u32(6))), _compare(_EQUAL, _interface(interface))]


def leaves_by(interface: str) -> list[bytes]:
    """The packet goes out over that interface."""
    return [_load("meta", (1, _u32(_REGISTER)), (2, _u32(7))), _compare(_EQUAL, _interface(interface))]


def goes_to(network: Network) -> list[bytes]:
    """Its destination is within the network."""
    is_v6 = network.version == 6
    offset, length = (24, 16) if is_v6 else (16, 4)
    # The family `inet` sees both versions: which one it is has to be asked first.
    parts = [
        _load("meta", (1, _u32(_REGISTER)), (2, _u32(15))),
        _compare(_EQUAL, bytes([socket.AF_INET6 if is_v6 else socket.AF_INET])),
        _load("payload", (1, _u32(_REGISTER)), (2, _u32(1)), (3, _u32(offset)), (4, _u32(length))),
    ]
    if network.prefixlen < network.max_prefixlen:
        parts.append(_masked(network.netmask.packed))
    return [*parts, _compare(_EQUAL, network.network_address.packed)]


def protocol(number: int) -> list[bytes]:
    """TCP, UDP or ICMPV6."""
    return [_load("meta", (1, _u32(_REGISTER)), (2, _u32(16))), _compare(_EQUAL, bytes([number]))]


def to_port(number: int) -> list[bytes]:
    """Its destination's port, after `protocol`."""
    return [
        _load("payload", (1, _u32(_REGISTER)), (2, _u32(2)), (3, _u32(2)), (4, _u32(2))),
        _compare(_EQUAL, struct.pack(">H", number)),
    ]


def neighbour_discovery() -> list[bytes]:
    """What IPv6 needs to find the next host: types 133 to 136 of its control messages."""
    kind = _load("payload", (1, _u32(_REGISTER)), (2, _u32(2)), (3, _u32(0)), (4, _u32(1)))
    return [*protocol(ICMPV6), kind, _compare(_AT_LEAST, bytes([133])), kind, _compare(_AT_MOST, bytes([136]))]


def is_answer() -> list[bytes]:
    """It goes back to where a connection came from."""
    return [_load("ct", (1, _u32(_REGISTER)), (2, _u32(1))), _compare(_EQUAL, bytes([1]))]


def is_about_another() -> list[bytes]:
    """It tells of an error in a connection that there is."""
    return _conntrack(0, 0x4)


def was_redirected() -> list[bytes]:
    """It was addressed to another destination: to a port of this host that leads into a container, for example."""
    return _conntrack(2, 0x20)


def accept() -> list[bytes]:
    """This table has nothing against it; others may."""
    return [_verdict(_VERDICT_ACCEPT)]


def drop() -> list[bytes]:
    """It vanishes."""
    return [_verdict(_VERDICT_DROP)]


def reject() -> list[bytes]:
    """Its sender is told that it may not."""
    counter = _expression("counter", b"")
    return [counter, _load("reject", (1, _u32(_BY_HOST)), (2, bytes([_ADMINISTRATIVELY_PROHIBITED])))]


def jump(chain: str) -> list[bytes]:
    """The rules of that chain decide; what they leave undecided comes back."""
    return [_verdict(_VERDICT_JUMP, chain)]


def _conntrack(key: int, mask: int) -> list[bytes]:
    loaded = _load("ct", (1, _u32(_REGISTER)), (2, _u32(key)))
    return [loaded, _masked(struct.pack("=I", mask)), _compare(_NOT_EQUAL, bytes(4))]


def _verdict(code: int, chain: str | None = None) -> bytes:
    verdict = _attribute(1, struct.pack(">i", code)) + (b"" if chain is None else _attribute(2, _text(chain)))
    return _load("immediate", (1, _u32(0)), (2 | _NESTED, _attribute(2 | _NESTED, verdict)))


def _masked(mask: bytes) -> bytes:
    return _load(
        "bitwise",
        (1, _u32(_REGISTER)),
        (2, _u32(_REGISTER)),
        (3, _u32(len(mask))),
        (4 | _NESTED, _attribute(1, mask)),
        (5 | _NESTED, _attribute(1, bytes(len(mask)))),
    )


def _compare(how: int, value: bytes) -> bytes:
    return _load("cmp", (1, _u32(_REGISTER)), (2, _u32(how)), (3 | _NESTED, _attribute(1, value)))


def _load(name: str, *attributes: tuple[int, bytes]) -> bytes:
    return _expression(name, b"".join(_attribute(kind, value) for kind, value in attributes))


def _expression(name: str, data: bytes) -> bytes:
    return _attribute(1 | _NESTED, _attribute(1, _text(name)) + _attribute(2 | _NESTED, data))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _u32(number: int) -> bytes:
    return struct.pack(">I", number)


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _interface(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


# --- messages ----------------------------------------------------------------------------------------------------------


def replacing(table: Table) -> list[tuple[int, int, bytes]]:
    """The messages after which the table holds these rules and no others: kind, flags, body of each."""
    named = _attribute(1, _text(table.name))
    messages = [
        # The first makes sure that there is one to be removed.
        (_NEW_TABLE, _CREATE, named),
        (_DELETE_TABLE, 0, named),
        (_NEW_TABLE, _CREATE, named),
        *((_NEW_CHAIN, _CREATE, _chain(table.name, chain)) for chain in table.chains),
    ]
    for chain in table.chains:
        place = named + _attribute(2, _text(chain.name))
        for each in chain.rules:
            comment = each.comment.encode()[:COMMENT_MAX_BYTES] + b"\0"
            told = _attribute(7, struct.pack("=BB", 0, len(comment)) + comment)
            messages.append(
                (_NEW_RULE, _CREATE | _APPEND, place + _attribute(4 | _NESTED, b"".join(each.parts)) + told)
            )
    return messages


def deleting(name: str) -> list[tuple[int, int, bytes]]:
    """The messages after which there is no table of that name."""
    named = _attribute(1, _text(name))
    return [(_NEW_TABLE, _CREATE, named), (_DELETE_TABLE, 0, named)]


def _chain(table: str, chain: Chain) -> bytes:
    body = _attribute(1, _text(table)) + _attribute(3, _text(chain.name))
    if chain.hook is None:
        return body
    hook = _attribute(1, _u32(HOOKS[chain.hook])) + _attribute(2, struct.pack(">i", chain.priority))
    return body + _attribute(4 | _NESTED, hook) + _attribute(5, _u32(_VERDICT_ACCEPT)) + _attribute(7, _text("filter"))


def _message(kind: int, flags: int, number: int, body: bytes, *, family: int = _INET, resource: int = 0) -> bytes:
    payload = struct.pack(">BBH", family, 0, resource) + body
    return struct.pack("=IHHII", 16 + len(payload), kind, _REQUEST | flags, number, 0) + payload


def _parsed(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, number and body of each message."""
    at = 0
    while at + 16 <= len(data):
        length, kind, _, number, _ = struct.unpack_from("=IHHII", data, at)
        if length < 16:
            return
        yield kind, number, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


# --- the kernel --------------------------------------------------------------------------------------------------------


def apply(messages: Sequence[tuple[int, int, bytes]]) -> None:
    """The kernel has done all of it, or nothing. Raises NftablesError."""
    last = len(messages)
    batch = [
        _message(_BATCH_BEGIN, 0, 0, b"", family=0, resource=_SUBSYSTEM),
        *(
            # One that fails is always told of; that all went well is told once, or many would not fit into the socket.
            _message(_SUBSYSTEM << 8 | kind, flags | (_ACK if number == last else 0), number, body)
            for number, (kind, flags, body) in enumerate(messages, 1)
        ),
        _message(_BATCH_END, 0, last + 1, b"", family=0, resource=_SUBSYSTEM),
    ]
    with _connection() as kernel:
        for data in _answers(kernel, b"".join(batch)):
            for kind, number, body in _parsed(data):
                if kind != _ERROR:
                    continue
                code = struct.unpack_from("=i", body)[0]
                if code:
                    raise NftablesError(-code)
                if number == last:
                    return


def tables() -> list[str]:
    """The names of all tables of the family. Raises NftablesError."""
    return [_string(found[1]) for found in _dumped(_GET_TABLE, b"") if 1 in found]


def comments(table: str) -> list[str]:
    """The comments of all its rules; none when there is no such table. Raises NftablesError."""
    return [
        _comment(found.get(7, b""))
        for found in _dumped(_GET_RULE, _attribute(1, _text(table)))
        if _string(found[1]) == table
    ]


def _dumped(kind: int, body: bytes) -> Iterator[dict[int, bytes]]:
    with _connection() as kernel:
        for data in _answers(kernel, _message(_SUBSYSTEM << 8 | kind, _DUMP, 1, body)):
            for answered, _, content in _parsed(data):
                if answered == _DONE:
                    return
                if answered == _ERROR:
                    code = struct.unpack_from("=i", content)[0]
                    if code in {0, -errno.ENOENT}:
                        return
                    raise NftablesError(-code)
                yield _attributes(content[4:])


def _answers(kernel: socket.socket, request: bytes) -> Iterator[bytes]:
    try:
        kernel.sendto(request, (0, 0))
        while True:
            yield kernel.recv(1 << 16)
    except TimeoutError:
        raise NftablesError(errno.ETIMEDOUT) from None
    except OSError as error:
        raise NftablesError(error.errno or errno.EIO) from error


def _connection() -> socket.socket:
    try:
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError as error:
        raise NftablesError(error.errno or errno.EIO) from error
    kernel.settimeout(TIMEOUT_SECONDS)
    return kernel


def _string(data: bytes) -> str:
    return data.partition(b"\0")[0].decode(errors="replace")


def _comment(data: bytes) -> str:
    at = 0
    while at + 2 <= len(data):
        kind, length = data[at], data[at + 1]
        if kind == 0:
            return _string(data[at + 2 : at + 2 + length])
        at += 2 + length
    return ""
