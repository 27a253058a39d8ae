"""What a program that trains asks of the allocator."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, numpy as np
from tinymaml.device import keep_memory
assert keep_memory() is True
def step():
    for size in (1 << 22, 1 << 24, 1 << 26):
        np.empty(size, np.uint8).fill(1)
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc: its allocator is what is spoken to")
def test_what_is_freed_is_kept():
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # 0, and 5 440 without it: each step faults its pages in anew
