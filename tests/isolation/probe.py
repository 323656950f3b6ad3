#!/usr/bin/python3 -ES
"""What stands for `prefect` in a hostile run: tries whatever a run shall not be able to do, and prints what became of each attempt.

It asks the API for its run's parameters: `{"listen": port}` to be somebody else's neighbour, or `{"targets": {name: [address, port]},
"paths": {name: path}, …}`. Each attempt is one line `NAME: OUTCOME`.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import json
import os
import pathlib
import socket
import struct
import sys
import threading
import urllib.error
import urllib.request

API, RUN = os.environ["PREFECT_API_URL"], os.environ["PREFECT__FLOW_RUN_ID"]
AUTH = os.environ.get("PREFECT_API_AUTH_STRING")
CREDENTIAL = f"Basic {base64.b64encode(AUTH.encode()).decode()}" if AUTH else f"Bearer {os.environ['PREFECT_API_KEY']}"
LIBC = ctypes.CDLL(None, use_errno=True)
CONNECT_SECONDS = 3.0
OUTCOMES = {
    errno.EPERM: "not permitted",
    errno.EACCES: "not permitted",
    errno.EROFS: "read-only",
    errno.ENOENT: "not there",
    errno.ENOSYS: "not there",
    errno.ESRCH: "not there",
    errno.EHOSTUNREACH: "kept out",
    errno.ENETUNREACH: "kept out",
    errno.ECONNREFUSED: "refused",
}
CLONE_NEWUSER, PTRACE_ATTACH, ADD_KEY = 0x10000000, 16, 248
MS_REMOUNT_RW = 32


def tell(name: str, outcome: str) -> None:
    sys.stdout.write(f"{name}: {outcome}\n")
    sys.stdout.flush()


def became(attempt, *arguments):
    """The outcome of the attempt."""
    try:
        found = attempt(*arguments)
    except TimeoutError:
        return "nothing came back"
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        reason = getattr(error, "reason", error)
        return OUTCOMES.get(getattr(reason, "errno", None), str(error))
    return found if isinstance(found, str) else "DONE"


def system(call, *arguments):
    """A call of the system that raises."""
    ctypes.set_errno(0)
    if call(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")


def api(path, credential=CREDENTIAL):
    headers = {"Authorization": credential} if credential else {}
    with urllib.request.urlopen(urllib.request.Request(API + path, headers=headers), timeout=10) as answer:
        return str(answer.status)


def connect(address, port):
    socket.create_connection((address, port), CONNECT_SECONDS).close()
    return "REACHED"


def ask_for_names(address, port):
    """Whether a service of UDP answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(CONNECT_SECONDS)
        asking.connect((address, port))
        asking.send(b"anybody?")
        return "REACHED" if asking.recv(99) else "nothing came back"


def exists(path):
    pathlib.Path(path).stat()
    return "THERE"


def write(path, text="1"):
    with open(path, "w") as file:
        file.write(text)


def read(path):
    """Whether there is anything in it."""
    with open(path, "rb") as file:
        return "READ" if file.read(64) else "empty"


def make_device():
    os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0))


def new_address():
    """As `ip address add` asks the kernel for it: an address that is somebody else's."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, socket.if_nametoindex("eth0"))
        body += struct.pack("=HH4s", 8, 2, socket.inet_aton("192.0.2.99"))
        kernel.send(struct.pack("=IHHII", 16 + len(body), 20, 0x605, 1, 0) + body)
        code = struct.unpack_from("=i", kernel.recv(4096), 16)[0]
        if code:
            raise OSError(-code, "refused")


def visible_processes():
    names = {path.read_text().strip() for path in pathlib.Path("/proc").glob("[0-9]*/comm") if path.exists()}
    return (
        "ITS OWN"
        if not names & {"dockerd", "containerd", "systemd", "sshd", "managedd"}
        else f"THE HOST'S {sorted(names)}"
    )


def mounts():
    """Every file system of the host that is mounted here, but for files of the engine's own: place, and whether it may be written."""
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        kind = words[words.index("-") + 1]
        if kind in {"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay"}:
            continue
        found.append(f"{words[4]} {words[5].split(',')[0]}")
    own = {
        "/etc/hosts rw",
        "/etc/hostname rw",
        "/etc/resolv.conf rw",
        "/sbin/docker-init ro",
        "/usr/sbin/docker-init ro",
    }
    found = set(found) - own
    return ", ".join(sorted(found)) or "none"


def status(name):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split()[1]
    return "not told"


ATTEMPTS = {
    "capabilities": (status, "CapEff"),
    "capabilities of children": (status, "CapBnd"),
    "no new privileges": (status, "NoNewPrivs"),
    "seccomp": (status, "Seccomp"),
    "processes it sees": (visible_processes,),
    "mounts": (mounts,),
    "raw socket": (socket.socket, socket.AF_INET, socket.SOCK_RAW, 1),
    "packet socket": (socket.socket, socket.AF_PACKET, socket.SOCK_RAW),
    "another address": (new_address,),
    "mount": (system, LIBC.mount, b"none", b"/mnt", b"tmpfs", 0, None),
    "remount /proc/sys": (system, LIBC.mount, b"none", b"/proc/sys", None, MS_REMOUNT_RW, None),
    "user namespace": (system, LIBC.unshare, CLONE_NEWUSER),
    "chroot": (os.chroot, "/tmp"),
    "device": (make_device,),
    "host name": (socket.sethostname, "other"),
    "clock": (system, LIBC.settimeofday, struct.pack("=qq", 1, 0), None),
    "kernel key ring": (system, LIBC.syscall, ADD_KEY, b"user", b"x", b"x", 1, -3),
    "kernel module": (system, LIBC.syscall, 175, b"x", 1, b""),
    "write /proc/sys": (write, "/proc/sys/kernel/panic"),
    "write /proc/sys/net": (write, "/proc/sys/net/ipv4/conf/all/route_localnet"),
    "write /proc/sysrq-trigger": (write, "/proc/sysrq-trigger", "h"),
    "write /sys": (write, "/sys/kernel/profiling"),
    "write a control group": (write, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1"),
    "read /proc/kcore": (read, "/proc/kcore"),
    "write the shim": (write, "/opt/managedd/shim.py"),
}


def listen(port):
    with socket.create_server(("", port)) as server:
        tell("listening", "yes")
        while True:
            with contextlib.suppress(OSError):
                server.accept()[0].close()


def main() -> None:
    tell("API with its key", became(api, f"/flow_runs/{RUN}"))
    tell("API without a key", became(api, f"/flow_runs/{RUN}", None))
    with urllib.request.urlopen(
        urllib.request.Request(f"{API}/flow_runs/{RUN}", headers={"Authorization": CREDENTIAL}), timeout=10
    ) as answer:
        wanted = json.load(answer)["parameters"]
    if "listen" in wanted:
        listen(wanted["listen"])
    found = {}
    ways = [(name, connect, target) for name, target in wanted.get("targets", {}).items()]
    ways += [(name, ask_for_names, target) for name, target in wanted.get("udp", {}).items()]
    threads = [
        threading.Thread(target=lambda name, how, to: found.__setitem__(name, became(how, *to)), args=way)
        for way in ways
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, outcome in found.items():
        tell(name, outcome)
    for name, path in wanted.get("paths", {}).items():
        tell(name, became(exists, path))
    for name, pid in wanted.get("pids", {}).items():
        tell(f"signal to {name}", became(os.kill, pid, 0))
        tell(f"ptrace of {name}", became(system, LIBC.ptrace, PTRACE_ATTACH, pid, None, None))
    for name, (attempt, *arguments) in ATTEMPTS.items():
        tell(name, became(attempt, *arguments))
    tell("the end", "reached")


main()
