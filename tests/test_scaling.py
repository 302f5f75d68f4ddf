"""The ladder from runs' folders on: which are trained, what is read, fitted and predicted."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from c2s_jax import scaling
from c2s_jax.config import base, plain
from c2s_jax.metrics.power_law import PowerLaw

LAW = PowerLaw(2.0, (30.0, 900.0), (0.3, 0.5))
WIDTHS = (16, 24, 32, 48, 64, 96)
STEPS = np.arange(10, 101, 10)


def write_run(folder: Path, width: int, *, rank: int = 0, seed: int = 0, law: PowerLaw = LAW, steps=STEPS) -> Path:
    """The folder of a run of which the loss follows a law of 12 · width² · 2 parameters and tokens, exactly."""
    config = base()
    config.steps, config.batch_size, config.seed, config.data.seq_len = 100, 4, seed, 256
    config.model.update(vocab_size=100, embed_dim=width, ffw_dim=3 * width, num_layers=2, num_heads=2, num_kv_heads=1)
    config.model.update(head_dim=width // 2, query_pre_attn_scalar=1.0)
    config.lora.rank = rank
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(plain(config)))
    lines = []
    for step in steps:
        loss = float(law(24 * width**2, step * 4 * 256 * 0.5))
        line = {"validation/loss": loss, "validation/loss/cell_type_annotation": 0.5 * loss}
        lines.append({"step": int(step), "train/useful_token_share": 0.5, **line})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def ladder(tmp_path) -> list[Path]:
    return [write_run(tmp_path / f"w{width}", width) for width in WIDTHS]


def test_what_a_run_says(ladder):
    rung = scaling.read_rung(ladder[0])
    norms = 2 * 4 * 16 + 16
    assert (rung.kind, rung.embedding_parameters, rung.parameters) == ("full", 100 * 16, 24 * 16**2 + norms)
    assert rung.tokens[-1] == 100 * 4 * 256 / 2
    assert set(rung.losses) == {"validation/loss", "validation/loss/cell_type_annotation"}
    assert rung.flops > 6 * rung.parameters * 100 * 4 * 256


def test_the_largest_is_predicted_from_the_others(ladder, tmp_path):
    found = scaling.report(ladder, tmp_path, held_out=1, after=0.2)
    assert json.loads((tmp_path / "scaling.json").read_text()) == found
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    told = {(p["run"], p["metric"]): p for p in found["predictions"]["full"]}
    last = told["w96", "validation/loss"]
    assert last["measured"] == pytest.approx(float(LAW(24 * 96**2, 100 * 512)))
    assert abs(last["error"]) < 0.005
    assert last["by_size_and_tokens"]["loss"] == pytest.approx(last["measured"], rel=0.005)
    following = told["next", "validation/loss"]
    assert "measured" not in following
    assert following["by_size_and_tokens"]["loss"] == pytest.approx(float(LAW(24 * 144**2, 100 * 512)), rel=0.01)
    task = told["w96", "validation/loss/cell_type_annotation"]
    assert task["by_size"]["loss"] == pytest.approx(0.5 * last["by_size"]["loss"], rel=0.01)
    law = found["laws"]["full"]["validation/loss"]["by_size_and_tokens"]
    np.testing.assert_allclose(law["exponents"], LAW.exponents, rtol=0.15)


def test_the_held_out_run_is_not_fitted(ladder, tmp_path):
    before = scaling.report(ladder, tmp_path, held_out=1, after=0.2)["laws"]
    (ladder[-1] / "metrics.jsonl").unlink()
    (ladder[-1] / "config.json").unlink()
    ladder[-1].rmdir()
    write_run(ladder[-1], WIDTHS[-1], law=PowerLaw(9.0, (30.0, 900.0), (0.3, 0.5)))
    assert scaling.report(ladder, tmp_path, held_out=1, after=0.2)["laws"] == before


def test_adapters_have_a_law_of_their_own(ladder, tmp_path):
    worse = PowerLaw(2.5, (30.0, 900.0), (0.3, 0.5))
    adapters = [write_run(tmp_path / f"l{width}", width, rank=2, law=worse) for width in WIDTHS]
    found = scaling.report([*ladder, *adapters], tmp_path, held_out=1, after=0.2)
    trained = {r["name"]: r["trained_parameters"] for r in found["runs"]}
    each = sum(a + b for a, b in ((16, 16), (16, 8), (16, 8), (16, 16), (16, 48), (16, 48), (48, 16)))  # q k v o, MLP
    assert (trained["w16"], trained["l16"]) == (100 * 16 + 24 * 16**2 + 2 * 4 * 16 + 16, 2 * 2 * each)
    last = {kind: told[0] for kind, told in found["predictions"].items()}
    assert last["LoRA"]["by_size"]["loss"] - last["full"]["by_size"]["loss"] == pytest.approx(0.5, abs=0.02)


def test_runs_on_other_rows_are_refused(ladder, tmp_path):
    other = write_run(tmp_path / "other", 40, seed=1)
    with pytest.raises(ValueError, match=r"w16 and .*other cannot be compared:\n  seed: 0 -> 1"):
        scaling.report([*ladder, other], tmp_path, held_out=1, after=0.2)


def test_too_short_a_ladder(ladder, tmp_path):
    with pytest.raises(ValueError, match="4 runs \\(full\\), 1 of them held out"):
        scaling.report(ladder[:4], tmp_path, held_out=1, after=0.2)


class TestTraining:
    @pytest.fixture
    def commands(self, monkeypatch):
        """Commands that would have been run, and the status they end with."""
        seen: dict = {"commands": [], "status": 0}

        def run(command, check):
            seen["commands"].append(command[1:])
            return subprocess.CompletedProcess(command, seen["status"])

        monkeypatch.setattr(scaling.subprocess, "run", run)
        return seen

    def test_finished_runs_are_left_alone(self, commands, tmp_path):
        write_run(tmp_path / "s_16", 16)
        write_run(tmp_path / "s_24", 24, steps=STEPS[:5])
        configs = ["s.py:16", "a/s.py:24", "s.py"]
        folders = scaling.train_ladder(configs, tmp_path, ["--config.seed=3"])
        assert folders == [tmp_path / "s_16", tmp_path / "s_24", tmp_path / "s"]
        assert commands["commands"] == [
            ["-m", "c2s_jax.train", f"--config={config}", f"--workdir={folder}", "--config.seed=3"]
            for config, folder in zip(configs[1:], folders[1:])
        ]

    def test_a_run_that_fails(self, commands, tmp_path):
        commands["status"] = 3
        with pytest.raises(ValueError, match=r"s\.py:16 ended with status 3"):
            scaling.train_ladder(["s.py:16", "s.py:24"], tmp_path, [])
        assert len(commands["commands"]) == 1

    def test_names(self):
        assert scaling.name_of("configs/scaling.py") == "scaling"
        assert scaling.name_of("configs/scaling.py:64x4+lora@runs/base") == "scaling_64x4_lora_runs_base"

    def test_the_same_twice(self, tmp_path):
        with pytest.raises(ValueError, match="names a run twice"):
            scaling.train_ladder(["a/s.py:16", "b/s.py:16"], tmp_path, [])
