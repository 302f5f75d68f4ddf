"""The SLURM script with stand-ins for ``srun`` and ``scontrol``."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The step itself: notes its arguments and flags, then ends as it is told to.
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$STAND_IN/arguments"
echo "$XLA_FLAGS" > "$STAND_IN/flags"
trap 'sleep 0.3; touch "$STAND_IN/saved"; exit 0' TERM
touch "$STAND_IN/started"
if [[ $STAND_IN_END == wait ]]; then while true; do sleep 0.05; done; fi
exit "$STAND_IN_END"
"""
SCONTROL = '#!/usr/bin/env bash\nls "$STAND_IN" > "$STAND_IN/requeued"; echo "$@" >> "$STAND_IN/requeued"\n'


def submit(folder: Path, end: str, *arguments: str) -> subprocess.Popen[str]:
    (folder / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    spooled = folder / "slurm_script"  # SLURM runs a copy
    spooled.write_text((ROOT / "launch" / "slurm.sh").read_text())
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "STAND_IN": str(folder),
        "STAND_IN_END": end,
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "42",
        "C2S_CHIP": "h200",
    }
    command = ["bash", str(spooled), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("end", ["0", "5"])
def test_a_run_that_ends_by_itself_is_not_queued_again(tmp_path: Path, end: str) -> None:
    process = submit(tmp_path, end, "--config=configs/9b.py", "--workdir=/shared/a run")
    process.communicate(timeout=60)
    assert process.returncode == int(end)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-4:] == ["-m", "c2s_jax.train", "--config=configs/9b.py", "--workdir=/shared/a run"]
    assert "--xla_gpu_enable_latency_hiding_scheduler=true" in (tmp_path / "flags").read_text()
    assert not (tmp_path / "requeued").exists()


def test_out_of_time_saves_first_and_is_queued_again(tmp_path: Path) -> None:
    process = submit(tmp_path, "wait", "--config=configs/9b.py")
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    *before, requeue = (tmp_path / "requeued").read_text().splitlines()
    assert requeue == "requeue 42"
    assert "saved" in before


def test_arguments_are_asked_for(tmp_path: Path) -> None:
    process = submit(tmp_path, "0")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "FATAL no arguments" in output
