"""The configurations of the released sizes build, with exactly the released numbers of parameters."""

import importlib.util
from pathlib import Path

import pytest
from flax import nnx
from ml_collections import ConfigDict

from c2s_jax.checks import check
from c2s_jax.config import apply_scale, mixture, model_config
from c2s_jax.models import make_model, num_parameters
from c2s_jax.rl.rewards import REWARDS

CONFIGS = Path(__file__).parent.parent / "configs"

# Parameters; then layers, D, F, H, K, E, and what the number of parameters does not show: the query scale.
RELEASED = {
    "2b": (2_614_341_888, 26, 2304, 9216, 8, 4, 256, 256),
    "9b": (9_241_705_984, 42, 3584, 14336, 16, 8, 256, 256),
    "27b": (27_227_128_320, 46, 4608, 36864, 32, 16, 128, 144),
}


def load(name: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(f"config_{name}", CONFIGS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes(name: str) -> None:
    config = model_config(load(name))
    model = nnx.eval_shape(lambda: make_model(config, nnx.Rngs(0)))
    assert num_parameters(model) == RELEASED[name][0]
    c = config
    sizes = [c.num_layers, c.embed_dim, c.ffw_dim, c.num_heads, c.num_kv_heads, c.head_dim]
    assert [*sizes, c.query_pre_attn_scalar] == [*RELEASED[name][1:]]
    assert config.vocab_size == 256_000
    assert (config.sliding_window, config.rope_theta, config.norm_eps) == (4096, 10_000.0, 1e-6)
    assert (config.attn_softcap, config.final_softcap) == (50.0, 30.0)


@pytest.mark.parametrize(
    ("name", "parameters", "sizes"),
    [
        ("160m", 162_322_944, (12, 768, 12)),
        ("410m", 405_334_016, (24, 1024, 16)),
        ("1b", 1_011_781_632, (16, 2048, 8)),
    ],
)
def test_pythia_sizes(name: str, parameters: int, sizes: tuple[int, ...]) -> None:
    """Table 1 of arXiv:2304.01373; rows are as long as Pythia's context."""
    run = load(name)
    config = model_config(run)
    assert num_parameters(nnx.eval_shape(lambda: make_model(config, nnx.Rngs(0)))) == parameters
    assert (config.num_layers, config.embed_dim, config.num_heads) == sizes
    assert (config.rotary_fraction, config.parallel_residual, config.activation) == (0.25, True, "gelu")
    assert (config.dtype, config.remat, run.data.seq_len) == ("bfloat16", "full", 2048)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.stem)
def test_every_configuration_names_tasks_that_exist(path: Path) -> None:
    assert mixture(load(path.stem))


@pytest.mark.parametrize("name", ["grpo_demo", "grpo_qa", "grpo_l1000", "grpo_dong"])
def test_grpo(name: str) -> None:
    """What can be said before weights and data are there: sizes, options and rewards fit together."""
    config = load(name)
    config.init_from = config.init_from or "RUN"
    check(config, devices=8 if name != "grpo_demo" else 1)
    model_config(config, vocab_size=config.model.vocab_size or 100)
    assert set(config.grpo.rewards) <= set(REWARDS)


@pytest.mark.parametrize("name", ["sft_dong", "sft_l1000", "sft_qa", "grpo_dong", "grpo_l1000", "grpo_qa"])
def test_small_scale(name: str) -> None:
    """The smaller values fit together, and runs that start from one another hold the same model."""
    config, start = load(name), load(name.replace("grpo", "sft"))
    for one in (config, start):
        one.scale = "small"
        apply_scale(one)
    config.init_from = "RUN" if name.startswith("grpo") else ""
    check(config, devices=1)
    found = model_config(config, vocab_size=1000)
    assert found == model_config(start, vocab_size=1000)
    assert num_parameters(nnx.eval_shape(lambda: make_model(found, nnx.Rngs(0)))) < 3_000_000
