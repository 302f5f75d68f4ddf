"""Loss and gradients do not depend on how many devices there are, nor on how they are laid out: 8 and 32 of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parallel.agreement import deviations

TOLERANCE = 1e-4  # float32 sums in another order, relative to each array's largest value

# Beside those of test_meshes: every axis alone and with every other.
EIGHT = {
    "gemma2": [{"sequence": 8}, {"replica": 2, "fsdp": 2, "sequence": 2}],
    "gpt_neox": [{"fsdp": 2, "sequence": 2, "tensor": 2}],
}
THIRTY_TWO = {
    "gemma2": [{"fsdp": 8, "sequence": 2, "tensor": 2}, {"replica": 4, "fsdp": 2, "sequence": 4}],
    "gpt_neox": [{"replica": 2, "fsdp": 4, "tensor": 4}],
}


@pytest.mark.parametrize("architecture", EIGHT)
def test_eight_devices(architecture: str) -> None:
    shapes = EIGHT[architecture]
    found = dict(zip(map(str, shapes), deviations(architecture, shapes, 8)))
    assert max(found.values()) < TOLERANCE, found


def test_thirty_two_devices() -> None:
    command = [sys.executable, "-m", "tests.parallel.agreement", "32", json.dumps(THIRTY_TWO)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert {name: len(values) for name, values in found.items()} == {"gemma2": 2, "gpt_neox": 1}
    assert max(map(max, found.values())) < TOLERANCE, found
