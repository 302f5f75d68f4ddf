"""Gemma-2 checkpoints of the ``gemma`` package, read by us: against that package and against Hugging Face's model."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
import transformers
from flax import nnx
from flax.traverse_util import flatten_dict
from numpy.typing import NDArray

from c2s_jax.models import Gemma2, Gemma2Config
from c2s_jax.models.gemma2 import RELEASED
from c2s_jax.models.gemma_checkpoint import from_gemma, read_gemma_config
from c2s_jax.parallel import make_mesh, parameter_shardings
from tests.models.hf_weights import TINY, hf_model, parameters

B, T = 2, 64
NORMS = {
    "input_layernorm": "pre_attention_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "pre_ffw_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
TOLERANCE = 1e-4  # of raw logits, absolute
VISIBLE = 1e-2  # what a wrong model must at least differ by

# What the gemma package cannot be told: it has one rope base and one norm epsilon, and knows two query scales.
GEMMA = dataclasses.replace(TINY, query_pre_attn_scalar=6.0, rope_theta=10_000.0, norm_eps=1e-6)


@pytest.fixture(scope="module")
def theirs() -> Iterator[transformers.Gemma2ForCausalLM]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield hf_model(TINY)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokens() -> Any:
    return np.random.default_rng(1).integers(1, TINY.vocab_size, (B, T), np.int32)  # 0 would be padding to gemma


@pytest.fixture(scope="module")
def expected(theirs: transformers.Gemma2ForCausalLM, tokens: Any) -> NDArray:
    with torch.no_grad():
        return theirs(torch.from_numpy(tokens).long()).logits.numpy()


@pytest.fixture(scope="module")
def nested(theirs: transformers.Gemma2ForCausalLM) -> dict[str, Any]:
    return gemma_tree({name: p.detach().numpy() for name, p in theirs.named_parameters()}, TINY)


def gemma_tree(weights: dict[str, NDArray], config: Gemma2Config, *, fused: bool = False) -> dict[str, Any]:
    """Hugging Face's weights in the gemma package's nested layout.

    ``fused`` puts queries, keys and values in one array, as the package does without grouped heads.
    """
    D, E = config.embed_dim, config.head_dim
    tree: dict[str, Any] = {
        "embedder": {"input_embedding": weights["model.embed_tokens.weight"]},
        "final_norm": {"scale": weights["model.norm.weight"]},
    }
    for i in range(config.num_layers):
        w = {k.removeprefix(f"model.layers.{i}."): v for k, v in weights.items() if f".layers.{i}." in k}
        q, k, v = (w[f"self_attn.{x}_proj.weight"].reshape(-1, E, D).swapaxes(1, 2) for x in "qkv")
        joint = {"qkv_einsum": {"w": np.stack([q, k, v])}} if fused else {}
        tree[f"layer_{i}"] = {
            "attn": {
                **(joint or {"q_einsum": {"w": q}, "kv_einsum": {"w": np.stack([k, v])}}),
                "attn_vec_einsum": {"w": w["self_attn.o_proj.weight"].T.reshape(-1, E, D)},
            },
            "mlp": {
                "gating_einsum": np.stack([w["mlp.gate_proj.weight"], w["mlp.up_proj.weight"]]),
                "linear": w["mlp.down_proj.weight"].T,
            },
            **{ours: {"scale": w[f"{name}.weight"]} for name, ours in NORMS.items()},
        }
    return tree


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    """The layout of the released files: one level of paths, with one array each below."""
    out: dict[str, Any] = {}
    for keys, array in flatten_dict(tree).items():
        keys = (*keys, "w") if "mlp" in keys else keys
        out.setdefault("/".join(("transformer", *keys[:-1])), {})[keys[-1]] = array
    return out


def gating_transposed(tree: dict[str, Any]) -> dict[str, Any]:
    """As in 2B: [2, D, F], not [2, F, D]."""
    return edit(tree, "mlp/gating_einsum", lambda gating: gating.swapaxes(1, 2))


def edit(tree: dict[str, Any], name: str, change: Callable[[NDArray], NDArray]) -> dict[str, Any]:
    """The tree with every array changed whose path ends in ``name``."""
    return jax.tree.map_with_path(
        lambda path, x: change(x) if jax.tree_util.keystr(path, simple=True, separator="/").endswith(name) else x, tree
    )


def save(tree: dict[str, Any], folder: Path) -> Path:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, jax.tree.map(jnp.asarray, tree))
    return folder


def logits_of(model: Gemma2, tokens: NDArray) -> NDArray:
    graphdef, params = nnx.split(model)
    return np.asarray(jax.jit(lambda p, t: nnx.merge(graphdef, p)(t))(params, tokens))


# ------------------------------------------------------------------------------------------ against the package


def test_logits_of_the_gemma_package(tokens: Any, tmp_path: Path) -> None:
    """Its model, its writer, our reader, our model: the same raw logits."""
    pytest.importorskip("gemma", reason="needs the extra c2s_jax[gemma]")
    from kauldron import kd

    if not hasattr(kd.ckpts, "AbstractPartialLoader"):  # gemma 3.3.0 knows it by the name it had before kauldron 1.4
        kd.ckpts.AbstractPartialLoader = kd.ckpts.InitTransform
    from gemma import gm
    from gemma.gm.nn import _config, _modules

    kinds = _modules.AttentionType
    config = gm.nn.config.TransformerConfig(
        num_embed=GEMMA.vocab_size,
        embed_dim=GEMMA.embed_dim,
        hidden_dim=GEMMA.ffw_dim,
        num_heads=GEMMA.num_heads,
        num_kv_heads=GEMMA.num_kv_heads,
        head_dim=GEMMA.head_dim,
        attention_types=(kinds.LOCAL_SLIDING, kinds.GLOBAL) * (GEMMA.num_layers // 2),
        sliding_window_size=GEMMA.sliding_window,
        attn_logits_soft_cap=GEMMA.attn_softcap,
        final_logit_softcap=GEMMA.final_softcap,
        query_pre_attn_norm=_config.QueryPreAttentionNormalisation.BY_ONE_OVER_SQRT_EMBED_DIM_DIV_NUM_HEADS,
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
        transpose_gating_einsum=True,
    )
    model = gm.nn.Transformer(config=config, dtype=jnp.float32, tokens="tokens")
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    spread = lambda x: 0.5 if x.ndim == 1 else 2.0 * 24**-0.5  # noqa: E731
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * spread(x), x.dtype), shapes)
    wanted = np.asarray(model.apply({"params": params}, tokens).logits)
    assert wanted.std() > 0.5
    gm.ckpts.save_params(params, tmp_path / "checkpoint", wait_until_finished=True)
    found = from_gemma(tmp_path / "checkpoint", config=GEMMA)
    np.testing.assert_allclose(logits_of(found, tokens), wanted, rtol=0, atol=TOLERANCE)


# --------------------------------------------------------------------------------- every layout, without the package

LAYOUTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "nested": lambda tree: tree,
    "nested, gating transposed": gating_transposed,
    "flat": flat,
    "flat, gating transposed": lambda tree: flat(gating_transposed(tree)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_of_hugging_face(
    nested: dict[str, Any], tokens: Any, expected: NDArray, tmp_path: Path, layout: str
) -> None:
    """The weights of Hugging Face's model in every layout of the package give Hugging Face's logits."""
    model = from_gemma(save(LAYOUTS[layout](nested), tmp_path / "checkpoint"), config=TINY)
    np.testing.assert_allclose(logits_of(model, tokens), expected, rtol=0, atol=TOLERANCE)


def test_joint_projections(tokens: Any, tmp_path: Path) -> None:
    """With as many kv heads as heads the package keeps queries, keys and values in one array."""
    config = dataclasses.replace(TINY, num_kv_heads=4)
    theirs = hf_model(config)
    tree = gemma_tree({name: p.detach().numpy() for name, p in theirs.named_parameters()}, config, fused=True)
    model = from_gemma(save(tree, tmp_path / "checkpoint"), config=config)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(tokens).long()).logits.numpy()
    np.testing.assert_allclose(logits_of(model, tokens), wanted, rtol=0, atol=TOLERANCE)


MUTATIONS: dict[str, tuple[str, Callable[[NDArray], NDArray]]] = {
    "keys and values exchanged": ("attn/kv_einsum/w", lambda kv: kv[::-1]),
    "gate and up exchanged": ("mlp/gating_einsum", lambda gating: gating[::-1]),
    **{f"weight, not scale, in {n}": (f"{n}/scale", lambda x: x - 1.0) for n in (*NORMS.values(), "final_norm")},
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_parity_sees(nested: dict[str, Any], tokens: Any, expected: NDArray, tmp_path: Path, name: str) -> None:
    model = from_gemma(save(edit(nested, *MUTATIONS[name]), tmp_path / "checkpoint"), config=TINY)
    assert np.abs(logits_of(model, tokens) - expected).max() > VISIBLE


def test_values_are_kept_bit_for_bit_and_lie_where_they_should(nested: dict[str, Any], tmp_path: Path) -> None:
    """bfloat16 arrays, read onto eight devices and onto one, NaNs with their payload among them."""
    tree = edit(nested, "input_embedding", lambda table: table[:96])  # two devices share it
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)
    half["layer_3"]["mlp"]["linear"].view(np.uint16)[0, :3] = (0x7FC1, 0xFF81, 0x8000)
    folder = save(half, tmp_path / "checkpoint")
    config = dataclasses.replace(TINY, vocab_size=96, param_dtype="bfloat16")
    mesh = make_mesh({"fsdp": 4, "tensor": 2}, jax.devices())
    placed = nnx.state(from_gemma(folder, config=config, shardings=partial(parameter_shardings, mesh=mesh)))
    for found, wanted in zip(jax.tree.leaves(placed), jax.tree.leaves(parameter_shardings(placed, mesh))):
        assert found.sharding.is_equivalent_to(wanted, found.ndim)
        assert found.dtype == jnp.bfloat16
    alone = parameters(nnx.state(from_gemma(folder, config=config)))
    for name, value in parameters(placed).items():
        np.testing.assert_array_equal(value.view(np.uint16), alone[name].view(np.uint16), err_msg=name)
    down = alone["blocks.global_layer.ffw.down.kernel"][1]
    np.testing.assert_array_equal(down.view(np.uint16), half["layer_3"]["mlp"]["linear"].view(np.uint16))


def test_dtypes_and_progress(nested: dict[str, Any], tmp_path: Path) -> None:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), nested)
    folder = save(half, tmp_path / "checkpoint")
    calls: list[tuple[int, int]] = []
    model = from_gemma(folder, config=TINY, progress=lambda done, total: calls.append((done, total)), remat="full")
    assert {str(x.dtype) for x in jax.tree.leaves(nnx.state(model))} == {"float32"}  # the config's
    assert model.config == dataclasses.replace(TINY, remat="full")
    total = sum(x.nbytes for x in jax.tree.leaves(half))
    assert {t for _, t in calls} == {total}
    assert len(calls) == 2 + TINY.num_layers  # one layer at a time
    assert sum(done for done, _ in calls) == total
    model = from_gemma(folder, config=TINY, dtype="bfloat16", param_dtype="float32")
    assert (model.config.dtype, model.config.param_dtype) == ("bfloat16", "float32")


# ------------------------------------------------------------------------------------------- what is there, and errors


@pytest.mark.parametrize("size", RELEASED)
def test_released_sizes_are_recognised(size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the shapes alone; the released table has 128 rows more than the vocabulary."""
    config = Gemma2Config(**RELEASED[size] | {"vocab_size": 256_128})
    monkeypatch.setattr(ocp, "PyTreeCheckpointer", lambda: Metadata(abstract_tree(config, half=size == "2b")))
    found = read_gemma_config(tmp_path)
    dtype = "bfloat16" if size == "2b" else "float32"
    assert found == dataclasses.replace(config, dtype=dtype, param_dtype=dtype)
    assert found.query_pre_attn_scalar == {"2b": 256.0, "9b": 256.0, "27b": 4608 / 32}[size]
    assert (found.sliding_window, found.attn_softcap, found.final_softcap) == (4096, 50.0, 30.0)


class Metadata:
    """What Orbax tells of a checkpoint that would not fit here."""

    def __init__(self, tree: dict[str, Any]):
        self.item_metadata = self
        self.tree = tree

    def metadata(self, path: Any) -> "Metadata":
        return self


def abstract_tree(config: Gemma2Config, *, half: bool) -> dict[str, Any]:
    c, D, F = config, config.embed_dim, config.ffw_dim
    shapes: dict[str, Any] = {
        "attn": {
            "q_einsum": {"w": (c.num_heads, D, c.head_dim)},
            "kv_einsum": {"w": (2, c.num_kv_heads, D, c.head_dim)},
            "attn_vec_einsum": {"w": (c.num_heads, c.head_dim, D)},
        },
        "mlp": {"gating_einsum": (2, D, F) if half else (2, F, D), "linear": (F, D)},
        **{norm: {"scale": (D,)} for norm in NORMS.values()},
    }
    tree = {f"layer_{i}": shapes for i in range(c.num_layers)}
    tree |= {"embedder": {"input_embedding": (c.vocab_size, D)}, "final_norm": {"scale": (D,)}}
    dtype = jnp.bfloat16 if half else jnp.float32
    return flat(jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, dtype), tree, is_leaf=lambda x: isinstance(x, tuple)))


def without(tree: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The tree without one branch."""
    first, *rest = keys
    return {
        k: (without(v, *rest) if rest else None) if k == first else v for k, v in tree.items() if rest or k != first
    }


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (lambda t: t, None, "num_kv_heads=2, head_dim=8; give config, for shapes do not tell query_pre_attn_scalar"),
        (lambda t: without(t, "layer_2", "attn", "kv_einsum"), TINY, "array layer_2/attn/kv_einsum is missing"),
        (lambda t: without(t, "embedder"), None, "array embedder/input_embedding is missing"),
        (lambda t: {"step": np.zeros(())}, TINY, "array layer_0/mlp/linear is missing; this is no whole Gemma-2"),
        (lambda t: t | {"vision": np.ones(3)}, TINY, "array vision has no place in a Gemma-2 of 4 layers"),
        (
            lambda t: edit(t, "layer_1/pre_ffw_norm/scale", lambda x: x[:5]),
            TINY,
            r"pre_ffw_norm/scale has shape \(5,\)",
        ),
        (lambda t: edit(t, "linear", lambda x: x[:24]), None, "linear is square, so how mlp/gating_einsum lies"),
        (lambda t: edit(t, "q_einsum/w", lambda x: x[0]), None, r"layer_0/attn/q_einsum has shape \(24, 8\), not 3"),
        (
            lambda t: t,
            dataclasses.replace(TINY, num_heads=8),
            r"attn_vec_einsum has shape \(4, 8, 24\); by the configuration it would be \(8, 8, 24\)",
        ),
        (lambda t: t, dataclasses.replace(TINY, num_layers=2), "array layer_2/.* has no place in a Gemma-2 of 2"),
    ],
)
def test_errors_name_the_folder_and_the_array(
    nested: dict[str, Any], tmp_path: Path, change: Callable, config: Gemma2Config | None, message: str
) -> None:
    folder = save(change(nested), tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=message) as error:
        from_gemma(folder, config=config)
    assert str(folder) in str(error.value)


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=f"{folder} is no Orbax checkpoint"):
            from_gemma(folder)


def test_a_damaged_checkpoint(nested: dict[str, Any], tmp_path: Path) -> None:
    folder = save(nested, tmp_path / "checkpoint")
    for data in folder.glob("ocdbt.process_0/d/*"):
        data.write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint: cannot read embedder/input_embedding: OUT_OF_RANGE"):
        from_gemma(folder, config=TINY)
