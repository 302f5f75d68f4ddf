"""The step of 27B for a slice of 64 chips, compiled: the largest program, which a change could spoil unseen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GIB = 1 << 30


@pytest.mark.slow
def test_27b_on_v5p_128(tmp_path: Path) -> None:
    """T = 8192, a row a chip, float32 AdamW and weights; MaxText's step takes 17.2 GiB at its peak, 19.8 in all."""
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    file, root = tmp_path / "report.json", Path(__file__).parents[2]
    command = [sys.executable, "-m", "c2s_jax.compile", "--config=configs/27b.py", "--topology=v5p:4x4x4", "--rows=1"]
    done = subprocess.run([*command, f"--json={file}"], cwd=root, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(file.read_text())
    assert report["tokens_per_chip"] == 8192
    assert report["hbm_bytes_per_chip"] < 15 * GIB
    state = 12 * report["parameters"] / 64
    assert report["hbm_bytes"]["arguments"] == pytest.approx(state, rel=0.02)
    assert report["hbm_bytes"]["aliased"] == pytest.approx(state, rel=0.02)  # nothing of the state is held twice
    assert report["flops_per_token"] == pytest.approx(171.5e9, rel=1e-3)
    assert report["mfu_bound_flops_only"] > 0.72  # one recomputed forward pass, and no more
