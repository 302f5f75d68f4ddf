"""Every recipe fits together at both scales, and its manifest can be read; without weights and data."""

import importlib.util
from pathlib import Path

import pytest
from flax import nnx
from ml_collections import ConfigDict

from c2s_jax.checks import check
from c2s_jax.config import apply_scale, mixture, model_config
from c2s_jax.models import make_model, num_parameters
from c2s_jax.recipe import BASE, fine_tuning, from_scratch
from c2s_jax.training import make_schedule
from data_pipeline.manifest import read_manifest

CONFIGS = Path(__file__).parents[1] / "configs"
ARGUMENTS = {"sft_spatial": ["interactions", "no_interactions"]}
MORE_SUITES = {"sft_spatial": ("spatial",)} | dict.fromkeys(["sft_generation", "zero_shot"], ("embedding", "bulk"))
RECIPES = ["sft_annotation", "lora_annotation", "sft_generation", "sft_spatial", "sft_caption", "sft_abstract"]


def load(name: str, *arguments: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", CONFIGS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arguments)


CASES = [(name, a) for name in [*RECIPES, "zero_shot"] for a in ARGUMENTS.get(name, [None])]


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_at_the_papers_scale(name, argument):
    config = load(name, *filter(None, [argument]))
    check(config, devices=8)
    assert config.init_from == BASE
    parameters = num_parameters(nnx.eval_shape(lambda: make_model(model_config(config), nnx.Rngs(0))))
    assert parameters == 2_614_341_888
    assert {task.loss for task in mixture(config)} == {"response"}
    assert config.evaluation.max_genes == max(task.max_genes or 0 for task in mixture(config))
    assert make_schedule(config)(config.steps) >= 0
    if name in ("sft_annotation", "sft_generation", "sft_spatial", "sft_caption", "sft_abstract"):
        assert (config.optimizer.learning_rate, config.optimizer.weight_decay, config.lora.rank) == (1e-5, 0.01, 0)


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_at_the_small_scale(name, argument):
    config = load(name, *filter(None, [argument]))
    names = [task.task for task in mixture(config)]
    config.scale = "small"
    apply_scale(config, ["init_from"] if name == "lora_annotation" else [])
    check(config, devices=1)
    assert bool(config.init_from) == (name == "lora_annotation")
    model = nnx.eval_shape(lambda: make_model(model_config(config, vocab_size=1000), nnx.Rngs(0)))
    assert num_parameters(model) < 2e6
    assert config.data.seq_len <= 512
    assert [task.task for task in mixture(config)] == names
    assert all(task.max_genes and task.max_genes <= 180 for task in mixture(config))
    assert config.evaluation.max_genes == max(task.max_genes or 0 for task in mixture(config))
    assert config.evaluation.more_suites == MORE_SUITES.get(name, ())
    assert make_schedule(config)(config.steps) >= 0


def test_the_small_shape_is_a_rung_of_the_ladder():
    """So that a recipe can start from it."""
    config = load("sft_annotation")
    config.scale = "small"
    apply_scale(config)
    rung = load("scaling", "128x4")
    assert model_config(config, vocab_size=100) == model_config(rung, vocab_size=100)


def test_rungs_that_go_on_from_another_ladder():
    rung, tuned, adapter = (load("scaling", f"64x2{how}") for how in ("", "@runs/ladder", "+lora@runs/ladder"))
    assert (rung.init_from, tuned.init_from, adapter.init_from) == ("", *["runs/ladder/scaling_64x2"] * 2)
    assert (rung.lora.rank, tuned.lora.rank, adapter.lora.rank) == (0, 0, 8)
    assert model_config(rung, vocab_size=9) == model_config(tuned, vocab_size=9) == model_config(adapter, vocab_size=9)
    assert tuned.data == adapter.data
    assert not set(rung.data.tasks) & set(tuned.data.tasks)
    assert all(tuned[key] == adapter[key] for key in ("steps", "batch_size", "validate_every", "validation_rows"))


@pytest.mark.parametrize("size", ["64x2+lora", "64x2+full@runs/ladder"])
def test_what_is_no_rung(size):
    with pytest.raises(ValueError, match="is no rung: give 64x4, "):
        load("scaling", size)


def test_unknown_variant_of_the_spatial_recipe():
    with pytest.raises(ValueError, match="give interactions or no_interactions"):
        load("sft_spatial", "some")


def test_tasks_of_a_recipe_learn_from_answers_unless_said():
    tasks = {"cell_type_annotation": {}, "cell_sentence_modelling": {"loss": "all", "weight": 2.0}}
    config = fine_tuning("x", tasks, from_scratch("cell_type_annotation", weight=3.0) | {"steps": 50})
    assert [(t.loss, t.weight) for t in mixture(config)] == [("response", 1.0), ("all", 2.0)]
    config.scale = "small"
    apply_scale(config)
    assert config.steps == 50
    assert [(t.loss, t.response_weight) for t in mixture(config)] == [("all", 3.0), ("all", 1.0)]


@pytest.mark.parametrize("path", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda p: p.stem)
def test_manifests(path, monkeypatch, tmp_path):
    """All that is wrong with them is that the data are not there."""
    for name in ("C2S_DATA", "C2S_CAPTIONS"):
        monkeypatch.setenv(name, str(tmp_path))
    problems = read_manifest(path).problems
    assert problems
    missing = ("nothing matches", "not found", "no file", "No such file")
    assert [p for p in problems if not any(text in p for text in missing)] == []
