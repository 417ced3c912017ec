"""What a server's process frees, it holds no more."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
import numpy as np
from shoal.server.memory import give_back_what_is_large

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

def work():
    large = [np.ones(2_000_000, np.uint8) for _ in range(20)]
    kept.append(np.ones(50_000, np.uint8))  # which lies behind them

if sys.argv[1] == "with":
    give_back_what_is_large()
kept, before = [], resident_mb()
np.ones(16_000_000, np.uint8)  # from which glibc learns to keep what has this size
threads = [threading.Thread(target=work) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(resident_mb() - before)
"""


def held_mb(how):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc, and adjusted on Linux only")
def test_large_arrays_go_back_to_the_system_whatever_lies_behind_them():
    assert held_mb("with") < 10
