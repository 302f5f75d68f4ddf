"""``c2s_jax.compile`` from command line to exit status, on steps that the compiler for TPUs is quick with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from c2s_jax.aot import search
from c2s_jax.config import base
from c2s_jax.models import gemma2
from c2s_jax.models.remat import POLICIES

ROOT = Path(__file__).parents[1]
CONFIG = """
from c2s_jax.config import base

def get_config():
    config = base()
    config.name = "toy"
    config.steps, config.batch_size = 2_000, 8
    config.data.seq_len = 1024
    config.model.update(vocab_size=4096, embed_dim=256, ffw_dim=1024, num_layers=4, num_heads=2, num_kv_heads=1)
    config.model.update(head_dim=128, query_pre_attn_scalar=128.0, sliding_window=512, dtype="bfloat16", remat="none")
    return config
"""
SIZES = dict(vocab_size=4096, embed_dim=256, ffw_dim=1024, num_layers=4, heads=2, kv_heads=1, head_dim=128)


def run(folder: Path, *flags: str, config: str = CONFIG, **variables: str) -> tuple[int, str, dict]:
    """Exit status, what was printed, and the report."""
    (folder / "toy.py").write_text(config)
    file = folder / "report.json"
    command = [sys.executable, "-m", "c2s_jax.compile", f"--config={folder / 'toy.py'}", f"--json={file}", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    return done.returncode, done.stdout + done.stderr, json.loads(file.read_text()) if file.exists() else {}


def test_a_step_that_fits(tmp_path: Path) -> None:
    """Its products and attention are those that a count of the model's shapes gives, loops and all."""
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    status, said, report = run(tmp_path, "--topology=v5e:2x2", "--rows=2", "--tokens=1e9")
    assert status == 0, said
    assert report["fits"]
    assert "fits" in said
    assert (report["chips"], report["tokens_per_chip"], report["chip"]) == (4, 2048, "v5e")
    tokens = report["tokens_per_chip"]
    d, f, v = SIZES["embed_dim"], SIZES["ffw_dim"], SIZES["vocab_size"]
    heads, kv = (SIZES[k] * SIZES["head_dim"] for k in ("heads", "kv_heads"))
    layer = d * (2 * heads + 2 * kv) + 3 * d * f
    # Forward and twice that backward. So few logits are one chunk, and are not made again.
    assert report["matmul_flops"] == 6 * tokens * (SIZES["num_layers"] * layer + d * v)
    keys = ((1024 + 1) / 2 + (512 * (512 + 1) / 2 + 512 * 512) / 1024) / 2
    assert report["attention_flops"] == pytest.approx(2 * 9 * tokens * SIZES["num_layers"] * heads * keys, rel=1e-6)
    flops = 3 * (2 * (SIZES["num_layers"] * layer + d * v) + 4 * SIZES["num_layers"] * heads * keys)
    assert report["flops_per_token"] == pytest.approx(flops, rel=1e-6)
    state = 12 * report["parameters"] / 4  # weights and two moments, float32, over four chips
    assert report["hbm_bytes"]["arguments"] == pytest.approx(state, rel=0.1)
    assert report["hbm_bytes"]["aliased"] == pytest.approx(state, rel=0.1)  # the state is donated
    assert report["collective_bytes"]
    bound = max(report["bounds_seconds"].values())
    assert report["step_seconds_estimate"] == bound
    assert report["chip_hours"] == pytest.approx(1e9 / tokens * bound / 3600)


def test_what_is_kept_on_the_host(tmp_path: Path) -> None:
    """The attention's outputs of every layer, in the host's memory; everything else of a layer is made again."""
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    status, said, report = run(tmp_path, "--topology=v5e:2x2", "--rows=2", "--config.model.remat=context=offload")
    assert status == 0, said
    context = 2 * report["tokens_per_chip"] * SIZES["heads"] * SIZES["head_dim"] * SIZES["num_layers"]
    assert context <= report["hbm_bytes"]["host"] < 2 * context


def test_a_step_in_integers_with_the_launchers_flags(tmp_path: Path) -> None:
    """Forward and the gradient of the input are int8, the kernel's gradient is not; the flags are those of a run."""
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    # A whole pod: what the compiler has for a few chips it may refuse for many.
    status, said, report = run(tmp_path, "--topology=v5e-256", "--rows=1", "--config.products=int8")
    assert status == 0, said
    assert report["chips"] == 256
    d, f, tokens = SIZES["embed_dim"], SIZES["ffw_dim"], report["tokens_per_chip"]
    heads, kv = (SIZES[k] * SIZES["head_dim"] for k in ("heads", "kv_heads"))
    products = SIZES["num_layers"] * (d * (2 * heads + 2 * kv) + 3 * d * f)
    assert report["int8_flops"] == 4 * tokens * products
    assert report["matmul_flops"] == 6 * tokens * (products + d * SIZES["vocab_size"])
    rate = 197e12
    compute = (report["matmul_flops"] + report["attention_flops"] - report["int8_flops"] / 2) / rate
    assert report["bounds_seconds"]["compute"] == pytest.approx(compute)
    printed = subprocess.run([ROOT / "launch" / "xla_flags.sh", "v5e"], capture_output=True, text=True, check=True)
    assert report["compiler_flags"]
    assert all(flag.split("=")[0] in printed.stdout for flag in report["compiler_flags"])


def test_two_slices(tmp_path: Path) -> None:
    """Parameters stay within a slice and gradients cross; without a replica a slice it is refused."""
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    status, said, report = run(tmp_path, "--topology=2*v5e:2x2", "--rows=1", "--config.mesh.replica=2")
    assert status == 0, said
    assert (report["chips"], report["mesh"]["replica"], report["mesh"]["fsdp"]) == (8, 2, 4)
    assert report["collective_bytes"]["all-reduce"] > 0
    status, said, _ = run(tmp_path, "--topology=2*v5e:2x2", "--rows=1")
    assert status == 1
    assert "FATAL mesh: replica=1 on 2 slices" in said


TOO_LARGE = CONFIG.replace(
    "    return config",
    """
    config.data.seq_len, config.batch_size = 8192, 64
    config.model.update(vocab_size=256, embed_dim=2048, ffw_dim=16384, num_layers=4)
    return config""",
)


def test_a_step_that_does_not_fit(tmp_path: Path) -> None:
    """Status 1, and the first change of settings that makes it fit."""
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    status, said, report = run(tmp_path, "--topology=v5e:2x2", config=TOO_LARGE)
    assert status == 1, said
    assert "does NOT fit" in said
    assert not report["fits"]
    assert report["advice"].startswith("--config.model.remat=full")
    assert report["advice"] in said
    assert report["variants"][-1]["fits"]
    assert not any(variant["fits"] for variant in report["variants"][:-1])


def test_without_the_compiler(tmp_path: Path) -> None:
    """What to install, in a line."""
    blocked = tmp_path / "blocked" / "libtpu"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('No module named libtpu')\n")
    path = f"{blocked.parent}{os.pathsep}{ROOT}"
    status, said, report = run(tmp_path, "--topology=v5e:2x2", PYTHONPATH=path, TPU_LIBRARY_PATH="/nowhere/libtpu.so")
    assert status == 1
    assert 'pip install "c2s_jax[tpu]"' in said
    assert "Traceback" not in said
    assert not report


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=v9:2x2"], "topology 'v9:2x2' is none"),
        (
            ["--topology=v5e:2x2", "--config.model.remat=everything"],
            "model.remat='everything' is not one of none, full",
        ),
        (["--topology=v5e:2x2", "--xla_flags=flags.txt"], "--xla_flags=flags.txt: there is no such file"),
        (["--topology=v5e:2x2", "--config.products=fp4"], "products='fp4' is not one of float, int8"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path: Path, flags: list[str], message: str) -> None:
    status, said, report = run(tmp_path, *flags)
    assert status == 1
    assert message in said
    assert "Traceback" not in said
    assert not report


def test_what_a_policy_keeps_is_known_from_shapes() -> None:
    """27B, one row: the table of widths in docs/training.md."""
    config = base()
    config.model.update(gemma2.RELEASED["27b"], dtype="bfloat16")
    layers, tokens, gib = 46, 8192, 2**30
    kept = {policy: search.kept_bytes(config, policy, rows=1) for policy in POLICIES}
    assert kept["full"] == 0
    assert kept["outputs"] == 2 * tokens * layers * (4608 + 32 * 128)
    assert kept["dots"] - kept["narrow"] == 2 * tokens * layers * 2 * 36864
    assert kept["narrow_gate0"] - kept["narrow"] == 2 * tokens * layers // 2 * 36864
    assert list(kept.values()) == sorted(kept.values())
    assert 60 < kept["dots"] / gib < 70


def test_the_cheapest_change_comes_first() -> None:
    config = base()
    config.model.update(gemma2.RELEASED["2b"], remat="dots")
    config.batch_size = 32
    tried = []

    def attempt(variant: object) -> dict:
        tried.append(variant)
        return {"fits": len(tried) == 3}

    changes, reports = search.first_that_fits(config, 16, attempt)
    assert changes == {"model.remat": "full", "model.mlp_chunks": 4, "accumulate": 2}
    assert [r["fits"] for r in reports] == [False, False, True]
    assert search.as_flags(changes).startswith("--config.model.remat=full --config.model.mlp_chunks=4")
    assert config.model.remat == "dots"


def test_the_search_for_the_fastest_begins_at_what_should_fit() -> None:
    config = base()
    config.model.update(gemma2.RELEASED["27b"], dtype="bfloat16", remat="full")
    config.batch_size = 4
    first = {"hbm_bytes_per_chip": 20 << 30, "hbm_capacity_bytes": 95 << 30, "step_seconds_estimate": 4.0}
    # Seconds that arithmetic and HBM take: does not fit; the compiler recomputes; waits for HBM; good.
    bounds = {"dots": None, "narrow_gate_up0": (4.1, 3.0), "narrow_gate": (3.5, 3.9), "narrow_gate0": (3.7, 3.6)}
    tried: list[str] = []

    def attempt(variant: object) -> dict:
        tried.append(variant.model.remat)  # type: ignore[attr-defined]
        if not (found := bounds[tried[-1]]):
            return {"fits": False}
        seconds = dict(zip(("compute", "hbm"), found))
        return {"fits": True, "bounds_seconds": seconds, "step_seconds_estimate": max(found)}

    changes, reports = search.fastest_that_fits(config, 4, first, attempt)
    assert tried == [r["changes"].split("=")[1].split()[0] for r in reports] == list(bounds)
    assert changes["model.remat"] == "narrow_gate0"


GRPO = CONFIG.replace(
    "    return config",
    """
    config.objective, config.init_from = "grpo", "RUN"
    config.data.seq_len, config.model.num_layers, config.model.vocab_size = 384, 2, 1024
    config.grpo.update(prompts=8, num_generations=2, max_completion_length=128, beta=0.1, minibatches=2)
    return config""",
)


def test_a_phase_of_grpo(tmp_path: Path) -> None:
    """Three programs; beside sampling lie the optimizer's moments and the reference, which it is not given."""
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    status, said, report = run(tmp_path, "--topology=v5e:2x2", config=GRPO)
    assert status == 0, said
    phases = report["phases"]
    assert list(phases) == ["rollout", "log-probabilities", "update"]
    assert all(name in said for name in phases)
    weights = phases["update"]["hbm_bytes"]["resident"]  # the reference's
    assert weights > 1e6
    for name in ("rollout", "log-probabilities"):
        assert phases[name]["hbm_bytes"]["resident"] == pytest.approx(3 * weights, rel=0.01)
        assert phases[name]["hbm_bytes"]["arguments"] < 1.6 * weights
    assert phases["update"]["hbm_bytes"]["arguments"] == pytest.approx(3 * weights, rel=0.1)
    assert report["hbm_bytes_per_chip"] == max(phase["hbm_bytes_per_chip"] for phase in phases.values())
