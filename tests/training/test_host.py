"""Memory of the host is used again instead of being returned."""

import resource
import subprocess
import sys

import pytest

from matinee.training.host import keep_freed_memory

COUNT_FAULTS = """
import resource
import torch
from matinee.training.host import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        a, b, c = (torch.zeros(2**20) for _ in range(3))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not have glibc")
def test_tensors_reuse_the_memory_of_freed_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True
    )
    pages = 20 * 3 * 2**22 // resource.getpagesize()
    assert int(done.stdout) < pages / 10


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("ctypes.CDLL", None)
    keep_freed_memory()
