"""Flows that can hardly be cancelled, and flows that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from prefect import flow, get_run_logger


@flow(log_prints=True)
def ticks(seconds: float = 300) -> None:
    """Easy to cancel; its child is not."""
    subprocess.Popen(["sh", "-c", "trap '' TERM INT; while :; do sleep 1; done"], start_new_session=True)
    print("ticking", flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.2)


@flow(log_prints=True)
def deaf() -> None:
    """Nobody here listens: the process that hears of a cancellation is stopped, and signals are ignored."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    print("deaf now")
    time.sleep(2)  # that process also passes on what is printed
    os.kill(os.getppid(), signal.SIGSTOP)
    while True:
        time.sleep(1)


@flow(log_prints=True)
def in_c() -> None:
    """One call that does not come back to the interpreter."""
    print("counting")
    time.sleep(2)
    sum(range(10**15))


@flow(log_prints=True)
def engine_kills_itself() -> None:
    print("killing the engine", time.time())
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


@flow(log_prints=True)
def supervisor_dies() -> None:
    """As if the whole process tree of the client were killed."""
    print("last words", time.time())
    time.sleep(1)
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@flow(log_prints=True)
def eats_memory() -> None:
    get_run_logger().info("eating")
    time.sleep(1)
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(1024) * 16 * 1024))


@flow(log_prints=True)
def fills_disk() -> None:
    """Writes on and on."""
    print("filling")
    with open("filler", "wb") as file:
        while True:
            file.write(b"x" * (8 << 20))
            file.flush()
            time.sleep(0.05)


@flow(log_prints=True)
def forks() -> None:
    """As many processes as it gets, each of which tries to have more."""
    print("forking")
    subprocess.run(
        ["sh", "-c", "bomb() { while :; do sleep 100 & bomb & sleep 0.05; done; }; bomb"],
        stderr=subprocess.DEVNULL,
        check=False,
    )
    time.sleep(300)


@flow(log_prints=True)
def child_eats_memory() -> int:
    """Only its child dies."""
    eat = "kept = []\nwhile True: kept.append(bytearray(16 << 20))"
    code = subprocess.run([sys.executable, "-c", eat], check=False).returncode
    print("the child ended with", code)
    return code


@flow(log_prints=True)
def steady() -> None:
    """Minds its own business until somebody says that it is enough."""
    beats = 0
    while not os.path.exists("/tmp/enough"):
        print("beat", beats)
        beats += 1
        time.sleep(0.5)
