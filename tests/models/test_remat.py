"""What the backward pass keeps changes what it computes again, and no result."""

import dataclasses
from functools import lru_cache

import jax
import numpy as np
import pytest
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.aot.hlo import Program
from c2s_jax.models import lora, make_model, remat
from c2s_jax.training.step import loss_sums
from tests.toy import MODEL, N_TASKS, make_batch, named

BATCH = make_batch(rows=2)
TOKENS = BATCH["tokens"].size
LAYERS, D, F = MODEL.num_layers, MODEL.embed_dim, MODEL.ffw_dim
HEADS, KV_HEADS = MODEL.num_heads * MODEL.head_dim, MODEL.num_kv_heads * MODEL.head_dim


@lru_cache
def trained(**settings: str | int) -> tuple[dict[str, NDArray], float]:
    """Loss and gradients by name, and the FLOPs of the products that the program executes."""
    graph, params = nnx.split(make_model(dataclasses.replace(MODEL, **settings), nnx.Rngs(0)))
    loss = jax.jit(jax.value_and_grad(lambda p: loss_sums(graph, p, BATCH, N_TASKS, None)[0]))
    compiled = loss.lower(params).compile()
    return named(compiled(params)), Program(compiled.as_text() or "").count().matmul_flops


@pytest.mark.parametrize(
    "settings",
    [
        *({"remat": name} for name in remat.POLICIES),
        {"remat": "full", "remat_scope": "block"},
        {"remat": "outputs", "remat_scope": "both"},
        {"remat": "input=offload, q=device, 1.gate=offload, mlp=remat"},
        {"remat": "full", "mlp_chunks": 4},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_every_policy_gives_the_same_gradients(settings: dict) -> None:
    (wanted, _), (found, _) = trained(remat="none"), trained(**settings)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=name)


@pytest.mark.parametrize(
    ("spec", "products"),
    [
        ("mlp=device,0.gate=device", 1.5 * D * F),
        ("up=offload,attention=device,q=device,v=device", D * F + D * (2 * HEADS + KV_HEADS)),
    ],
)
def test_what_is_kept_is_not_computed_again(spec: str, products: float) -> None:
    """Exactly the products of what is named go, layer by layer; so the counting of loops is right, too."""
    spared = trained(remat="full")[1] - trained(remat=spec)[1]
    assert spared == 2 * TOKENS * LAYERS * products


def test_dots_computes_no_product_twice() -> None:
    assert trained(remat="dots")[1] - trained(remat="none")[1] == pytest.approx(0, abs=4 * TOKENS * 24 * HEADS * LAYERS)


def test_both_scopes_cost_one_more_forward_pass() -> None:
    """Without the last layer of each block, whose input alone is of use to nobody."""
    layer, both = (trained(remat="full", remat_scope=scope)[1] for scope in ("layer", "both"))
    assert both > layer + 2 * TOKENS * (LAYERS // 2) * 3 * D * F * 0.9


def test_chunks_carry_an_adapter() -> None:
    """Both halves of a low-rank update are cut along with their kernels."""
    outputs = []
    for chunks in (1, 4):
        model = make_model(dataclasses.replace(MODEL, num_layers=2, mlp_chunks=chunks), nnx.Rngs(0))
        lora.add(model, lora.LoRAConfig(rank=2), nnx.Rngs(1))
        state = nnx.state(model, nnx.LoRAParam)
        nnx.update(model, jax.tree.map(lambda x: x + 0.02, state))
        outputs.append(model(BATCH["tokens"]))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("everything", "not one of none, full, .*dots, and no list"),
        ("outptus", "did you mean 'outputs'"),
        ("mpl=device", "no value is called 'mpl'; there are input, q, k, v, context"),
        ("mlp=disk", "mlp can be device, offload, remat, not 'disk'"),
        ("a.mlp=device", "begin with the number of a layer"),
    ],
)
def test_what_is_unknown_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MODEL, remat=spec)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"remat_scope": "pair"}, "'pair' is not one of layer, block, both"),
        ({"remat": "0.gate=device", "remat_scope": "block"}, "tells layers apart"),
        ({"mlp_chunks": 3}, "mlp_chunks=3 must divide ffw_dim=32"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MODEL, **settings)
