"""Bundles of compiler flags: what is printed, that compilers know them, that the manifests for Kubernetes agree."""

import importlib.util
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from c2s_jax.aot.chips import CHIPS

LAUNCH = Path(__file__).parents[2] / "launch"

# Making a topology starts the library, which reads its flags; no TPU is needed.
START = {
    "LIBTPU_INIT_ARGS": "from c2s_jax.aot import topology; topology.devices('v5e:2x4')",
    "XLA_FLAGS": "import jax; jax.devices()",
}


def bundle(*arguments: str, **environment: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if k not in (*START, "XLA_PYTHON_CLIENT_MEM_FRACTION")}
    command = [str(LAUNCH / "xla_flags.sh"), *arguments]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    lines = (shlex.split(line) for line in done.stdout.splitlines())
    return dict(assignment.split("=", 1) for _, assignment in lines)


def start(variable: str, flags: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "localhost", variable: flags}
    command = [sys.executable, "-c", START[variable]]
    return subprocess.run(
        command, env=environment, cwd=LAUNCH.parent, capture_output=True, text=True, timeout=300, check=False
    )


def test_every_chip_has_a_bundle() -> None:
    for chip in CHIPS.values():
        variables = bundle(chip.name)
        assert ("LIBTPU_INIT_ARGS" in variables) == chip.name.startswith("v"), chip
        assert ("XLA_FLAGS" in variables) != chip.name.startswith("v"), chip


def test_kinds_of_chips_and_slices_add_up() -> None:
    one, two = (bundle("v5e", n)["LIBTPU_INIT_ARGS"].split() for n in ("1", "2"))
    assert "--xla_tpu_enable_async_collective_fusion_fuse_all_reduce=true" in one
    assert set(one) < set(two)
    assert "--xla_tpu_enable_async_all_to_all=true" in bundle("v5p")["LIBTPU_INIT_ARGS"].split()


def test_the_callers_own_setting_wins() -> None:
    own = bundle("h100", XLA_FLAGS="--xla_gpu_a=1 --xla_gpu_b=2", XLA_PYTHON_CLIENT_MEM_FRACTION="0.5")
    assert own["XLA_FLAGS"].endswith("=268435456 --xla_gpu_a=1 --xla_gpu_b=2")
    assert own["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.5"


def test_unknown_chip() -> None:
    done = subprocess.run([str(LAUNCH / "xla_flags.sh"), "gaudi"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown chip 'gaudi'" in done.stderr


@pytest.mark.parametrize("variable", START)
def test_the_compilers_know_every_flag(variable: str) -> None:
    if variable == "LIBTPU_INIT_ARGS" and not importlib.util.find_spec("libtpu"):
        pytest.skip("libtpu is not installed")
    lines = (line.split() for line in (LAUNCH / "xla_flags.txt").read_text().splitlines())
    flags = " ".join(line[2] for line in lines if line and line[0] != "#" and line[1] == variable)
    done = start(variable, flags)
    assert done.returncode == 0, done.stderr[-2000:]
    assert start(variable, f"{flags} --xla_no_such_flag=true").returncode != 0  # the check can fail


@pytest.mark.parametrize(
    ("file", "chip", "resource"), [("gke.yaml", "v5p", "google.com/tpu"), ("gke_gpu.yaml", "h100", "nvidia.com/gpu")]
)
def test_kubernetes_manifests(file: str, chip: str, resource: str) -> None:
    documents = list(yaml.safe_load_all((LAUNCH / file).read_text()))
    accounts = [d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"]
    (jobs,) = (d for d in documents if d["kind"] == "JobSet")
    (group,) = jobs["spec"]["replicatedJobs"]
    job = group["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert {e["name"]: e["value"] for e in container["env"]} == bundle(chip)
    assert container["command"] == ["python", "-m", "c2s_jax.train"]
    assert (LAUNCH.parent / container["args"][0].removeprefix("--config=")).is_file()
    assert job["parallelism"] == job["completions"]
    assert pod["serviceAccountName"] in (accounts or ["c2s"])
    (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
    assert volume["name"] == mount["name"]
    assert container["args"][1].startswith(f"--workdir={mount['mountPath']}/")
    topology = pod["nodeSelector"].get("cloud.google.com/gke-tpu-topology")
    if topology:
        chips = math.prod(map(int, topology.split("x")))
        assert job["completions"] * container["resources"]["limits"][resource] == chips
