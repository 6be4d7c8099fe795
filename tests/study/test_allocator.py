"""A process that keeps its memory gets no new pages for a tensor as large as one that it freed."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from fewbits.study.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print([faults() for _ in range(12)][-1])
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc")
def test_a_freed_tensor_gives_its_memory_to_the_next_one():
    def pages(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert pages("given-back") > 50
    assert pages("kept") < 50


def test_elsewhere_nothing_is_changed(monkeypatch):
    from fewbits.study.allocator import keep_freed_memory

    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory.__wrapped__()
