"""Whole runs of ``objective = "grpo"``: they improve the reward, and survive what happens to them."""

import json
import os
import runpy
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from c2s_jax import grpo
from c2s_jax.parallel import make_mesh
from tests.runs import CONFIG, Run, last_state, lines, saved_steps, start_processes

PHASES = 6
GRPO = """
import sys
sys.path.insert(0, {folder!r})
from ml_collections import ConfigDict
from {sft} import get_config as sft

def get_config():
    config = sft()
    config.objective, config.init_from, config.steps, config.ema_decay = "grpo", {workdir!r}, 2 * {phases}, 0.0
    config.model.dropout = 0.0
    config.data.tasks = ("cell_type_conditioned_generation",)
    config.data.augmentation.update(shuffle_ties=False, gene_dropout=0.0)
    config.grpo.update(prompts=4, num_generations=8, max_completion_length=24, minibatches=2, beta=0.02, show=1)
    marked = {{"path": "tests.test_grpo:marked"}}
    config.grpo.rewards = ConfigDict({{"valid_genes": {{"weight": 1.0}}, "marked": marked}})
    config.optimizer.update(learning_rate=3e-3, warmup_steps=1)
    config.checkpoint.update(every=2, keep=2)
    return config
"""


def marked(world):
    """A reward that adds nothing, unless in a second process, and notes which completions it was asked about."""

    def reward(completions):
        path = os.environ.get("C2S_TEST_MARKS")
        if path:
            with open(path, "a") as file:
                file.write(json.dumps(completions.numbers.tolist()) + "\n")
            time.sleep(float(os.environ.get("C2S_TEST_DELAY", 0)))
        return np.random.default_rng(0).random(len(completions)) * bool(jax.process_index())

    return reward


@pytest.fixture(scope="module")
def configs(bundle, tmp_path_factory) -> tuple[Path, Path]:
    """A trained run's config, and that of a GRPO run that starts from it."""
    folder = tmp_path_factory.mktemp("grpo")
    sft = folder / "sft.py"
    sft.write_text(CONFIG.format(corpus=str(bundle.corpus), tokenizer=str(bundle.tokenizer)))
    first = Run(sft, folder / "sft_run", "--config.steps=60", "--config.checkpoint.every=60", "--config.log_every=20")
    assert first.end() == 0, first.output
    grpo = folder / "grpo.py"
    grpo.write_text(GRPO.format(folder=str(folder), sft="sft", workdir=str(folder / "sft_run"), phases=PHASES))
    return sft, grpo


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("alone") / "run"
    run = Run(configs[1], workdir, "--config.profile.steps=(3, 4)")
    assert run.end() == 0, run.output
    return workdir


def phases(workdir: Path) -> list[dict]:
    return [line for line in lines(workdir) if "grpo/reward" in line]


def test_a_run_improves_its_reward(alone) -> None:
    found = phases(alone)
    assert [line["step"] for line in found] == [2 * (i + 1) for i in range(PHASES)]
    rewards = [line["grpo/reward"] for line in found]
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.02, rewards
    for line in found:
        assert 0 <= line["train/logprob_gap"] < 1e-4  # float32: the sampler is the model
        assert line["train/kl"] >= 0
        assert line["train/entropy"] > 0
        np.testing.assert_allclose(line["grpo/reward"], line["grpo/reward/valid_genes"], rtol=1e-6)
    assert found[0]["train/kl"] < found[-1]["train/kl"]


def test_a_phase_is_traced(alone) -> None:
    assert list((alone / "profile").rglob("*.xplane.pb"))


def test_updates_move_nothing_without_being_asked_to(configs, tmp_path, monkeypatch) -> None:
    """Batches that are still on the host are refused by ``transfer_guard``."""
    monkeypatch.setattr(grpo, "make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))
    monkeypatch.setattr(grpo, "to_devices", lambda batches, mesh: batches)
    config = runpy.run_path(str(configs[1]))["get_config"]()
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        grpo.train(config, str(tmp_path / "run"))


def test_a_guard_that_stops_says_why(configs, tmp_path) -> None:
    """After steps so long that numbers overflow."""
    run = Run(configs[1], tmp_path / "run", "--config.optimizer.learning_rate=1e38")
    assert run.end() == 1
    assert "FATAL Step 4: since the last look, 2 updates were refused as not finite" in run.output


def test_a_finished_run_says_so(configs, alone) -> None:
    again = Run(configs[1], alone)
    assert again.end() == 0
    assert "Finished" in again.output


def test_an_adapter_is_held_to_its_base_in_every_phase(configs, tmp_path) -> None:
    """Whose weights are the state's own, which each update gives away."""
    run = Run(configs[1], tmp_path / "run", "--config.lora.rank=2", "--config.grpo.minibatches=1")
    assert run.end() == 0, run.output
    divergences = [line["train/kl"] for line in phases(tmp_path / "run")]
    assert abs(divergences[0]) < 1e-6 < divergences[-1]


def test_a_reference_under_way_is_refused(configs, tmp_path) -> None:
    unfinished = Run(configs[0], tmp_path / "sft", delay=0.3)
    unfinished.until(lambda: saved_steps(tmp_path / "sft") != [])
    unfinished.signal()
    unfinished.end()
    run = Run(configs[1], tmp_path / "run", f"--config.init_from={tmp_path / 'sft'}")
    assert run.end() == 1
    assert "must not change under a run" in run.output


def test_two_processes_are_one_with_two_devices(configs, tmp_path) -> None:
    """Also where rewards differ between processes, as those of ``marked`` do here."""
    run = Run(configs[1], tmp_path / "one", devices=2)
    assert run.end() == 0, run.output
    for run in start_processes(configs[1], tmp_path / "two", 2):
        assert run.end() == 0, run.output
    one, two = phases(tmp_path / "one"), phases(tmp_path / "two")
    assert [line["step"] for line in two] == [2 * (i + 1) for i in range(PHASES)]
    for name in ("grpo/reward", "grpo/length", "train/loss", "train/kl", "train/gradient_norm"):
        np.testing.assert_allclose([x[name] for x in two], [x[name] for x in one], rtol=1e-3, atol=1e-5, err_msg=name)


def test_killed_while_sampling_scoring_and_updating(configs, alone, tmp_path, monkeypatch) -> None:
    """Resumed, a run asks every prompt once and ends with the same bits as one that was left alone."""
    workdir, marks = tmp_path / "run", tmp_path / "marks"
    monkeypatch.setenv("C2S_TEST_MARKS", str(marks))

    def scored() -> int:
        return len(marks.read_text().splitlines()) if marks.exists() else 0

    for wait in ("scoring", "updating", "sampling"):
        run = Run(configs[1], workdir, delay=0.5)
        if wait == "scoring":
            before = scored()
            run.until(lambda seen=before: scored() >= seen + 2)
        elif wait == "updating":
            before = scored()
            run.until(lambda seen=before: scored() >= seen + 1)
            time.sleep(0.55)
        else:
            before = len(phases(workdir))
            run.until(lambda seen=before: len(phases(workdir)) > seen)
        run.signal(signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
    run = Run(configs[1], workdir)
    assert run.end() == 0, run.output
    wanted, found = last_state(alone), last_state(workdir)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    kept = ("step", "grpo/reward", "grpo/length", "train/loss", "train/kl", "train/gradient_norm")
    rows = [[{k: line[k] for k in kept} for line in phases(w)] for w in (workdir, alone)]
    assert rows[0] == rows[1]
    # A phase may be scored again after a kill, but no phase is left out, and each ends in the metrics once.
    asked = {numbers[0] // 32 for numbers in map(json.loads, marks.read_text().splitlines())}
    assert asked == set(range(PHASES))
    assert saved_steps(workdir)[-1] == 2 * PHASES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--config.init_from=", "improves a trained model: give its folder in init_from"),
        ("--config.steps=7", "steps=7 must be a multiple of grpo.num_iterations × minibatches = 2"),
        ("--config.accumulate=3", "must be a multiple of accumulate × devices that share them = 3"),
        ("--config.grpo.loss_type=ppo", "grpo.loss_type='ppo' is not one of"),
        ("--config.grpo.rewards={}", "grpo.rewards is empty"),
    ],
)
def test_nonsense_is_refused_in_a_line(configs, change, message, tmp_path) -> None:
    run = Run(configs[1], tmp_path / "run", change)
    assert run.end() != 0
    assert message in run.output
    assert "Traceback" not in run.output
