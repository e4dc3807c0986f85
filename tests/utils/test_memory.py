import resource
import subprocess
import sys

import pytest

from tests.tiny import ROOT

CODE = """
import resource, sys
import numpy as np
from utils.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
np.ones(8_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_made_anew(mode):
    done = subprocess.run([sys.executable, "-c", CODE, mode], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_a_freed_block_serves_the_next_tensor_of_its_size():
    block = 64_000_000 // resource.getpagesize()
    assert pages_made_anew("keep") < block / 10
    # Without it each of the ten blocks has all its pages made anew, or its huge pages where the system has them.
    assert pages_made_anew("not") > pages_made_anew("keep")
