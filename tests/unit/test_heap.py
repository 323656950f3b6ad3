"""The C library's heap is bounded where it can be, in a process of its own: its settings last."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest

AGAIN = """
import ctypes, json, resource, sys, threading
from managedd import heap

if sys.argv[1] == "held":
    heap.hold()
elif sys.argv[1] == "tight":
    for setting in (-1, -3):
        ctypes.CDLL(None).mallopt(setting, 128 * 1024)
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]

def work():
    blocks = [library.malloc(size * 1024) for size in (256, 64, 64, 64)]
    for block in blocks:
        ctypes.memset(ctypes.c_void_p(block), 1, 64 * 1024)
    for block in blocks:
        library.free(block)

def works():
    work()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(100):
        work()
    print(json.dumps(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before))

thread = threading.Thread(target=works)
thread.start()
thread.join()
"""
PROGRAM = """
import ctypes, json, sys, threading
from managedd import heap

held = heap.hold() if sys.argv[1] == "held" else None
library = ctypes.CDLL(None)

class Told(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks used free keepcost".split()]

library.mallinfo2.restype = Told
library.malloc.restype = library.fopen.restype = ctypes.c_void_p
library.free.argtypes = library.fclose.argtypes = [ctypes.c_void_p]
library.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]

library.free(library.malloc(16 << 20))
before = library.mallinfo2().hblks
library.malloc(1 << 20)
mapped = library.mallinfo2().hblks - before

together = threading.Barrier(12)
def allocate():
    together.wait()
    library.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = library.fopen(sys.argv[2].encode(), b"w")
library.malloc_info(0, file)
library.fclose(file)
heaps = open(sys.argv[2]).read().count("<heap nr=")

blocks = [library.malloc(4000) for _ in range(5000)]
last = library.malloc(4000)
for block in blocks:
    library.free(block)
print(json.dumps({"held": held, "mapped": mapped, "heaps": heaps, "gave": heap.give_back()}))
"""


def told(folder: Any, how: str, **environment: str) -> dict[str, Any]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, str(folder / "heaps.xml")],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(autouse=True)
def glibc() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another C library")
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("this C library can't be asked what it has mapped: mallinfo2 came with glibc 2.33")


def test_threads_share_heaps_and_what_is_large_goes_back(tmp_path: Any) -> None:
    assert told(tmp_path, "held") == {"held": True, "mapped": 1, "heaps": 2, "gave": True}


def test_what_the_c_library_does_by_itself_is_another_thing(tmp_path: Any) -> None:
    """So the test above can fail."""
    by_itself = told(tmp_path, "free")
    assert by_itself["mapped"] == 0
    assert by_itself["heaps"] > 2


def test_who_sets_the_heap_by_variables_is_left_alone(tmp_path: Any) -> None:
    assert told(tmp_path, "held", MALLOC_ARENA_MAX="3") == {"held": False, "mapped": 0, "heaps": 3, "gave": True}
    tuned = told(tmp_path, "held", GLIBC_TUNABLES="glibc.malloc.arena_max=3")
    assert tuned == {"held": False, "mapped": 0, "heaps": 3, "gave": True}
    assert told(tmp_path, "held", GLIBC_TUNABLES="glibc.pthread.rseq=1")["held"] is True


def test_what_each_transaction_takes_is_not_asked_of_the_system_again(tmp_path: Any) -> None:
    faults = {}
    for how in ("held", "tight"):
        done = subprocess.run([sys.executable, "-c", AGAIN, how], capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["held"] < 100 < faults["tight"]
