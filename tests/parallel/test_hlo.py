"""What the compiled training step sends between devices: parameters, keys and values, and chunks of the loss; no more.

Read off the optimised program. Every dimension of this model and batch has a length of its own, so that a shape
tells what an array is.
"""

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax
import pytest

from c2s_jax.aot import topology
from c2s_jax.aot.hlo import Program, dims
from c2s_jax.models import Gemma2Config
from c2s_jax.ops import logprob
from c2s_jax.parallel import ACTIVATION_RULES, batch_sharding, make_mesh
from c2s_jax.training import StatePlan, make_train_step

ROWS, TIME, CHUNK = 16, 40, 4
MODEL = Gemma2Config(
    vocab_size=1288,
    embed_dim=48,
    ffw_dim=112,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=20,
    query_pre_attn_scalar=5.0,
    sliding_window=8,
    remat="full",
)
MESH = {"fsdp": 2, "sequence": 2, "tensor": 2}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss in chunks of four tokens a row."""
    monkeypatch.setattr(logprob, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(logprob, "CHUNK_TOKENS", CHUNK * ROWS)


@pytest.fixture
def tpus() -> Iterator[list[jax.Device]]:
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    # Programs for devices that are elsewhere can be written to JAX's cache, but not read.
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    yield topology.devices("v5e:2x4")
    jax.config.update("jax_enable_compilation_cache", cached)


def compiled(shape: dict[str, int], devices: list[jax.Device], dtype: str) -> tuple[Program, StatePlan]:
    mesh, optimizer = make_mesh(shape, devices), optax.sgd(0.1)
    plan = StatePlan(dataclasses.replace(MODEL, dtype=dtype), optimizer, mesh)
    step = make_train_step(plan.graphdef, optimizer, mesh, plan.shardings, n_tasks=2)
    rows = batch_sharding(mesh)
    columns = dict.fromkeys(("tokens", "targets", "positions", "segment_ids", "task_ids"), jnp.int32)
    batch = {
        name: jax.ShapeDtypeStruct((ROWS, TIME), kind, sharding=rows)
        for name, kind in (columns | {"loss_weights": jnp.float32}).items()
    }
    return Program(step.lower(plan.abstract, batch).compile().as_text()), plan


def all_gathers(program: Program) -> dict[tuple[str, ...], float]:
    """Shapes of what is gathered, and how often."""
    found: dict[tuple[str, ...], float] = {}
    for times, computation, instruction, _ in program.walk():
        if instruction.operation.removesuffix("-start") == "all-gather":
            for name in instruction.operands:
                shape = program.computations[computation][name].shape.split("{")[0]
                found[shape] = found.get(shape, 0) + times
    return found


def is_known(shape: str, plan: StatePlan) -> bool:
    """A part of one block's parameter, token ids, a chunk of the loss, or keys and values."""
    size = sorted(n for n in dims(shape) if n > 1)
    if shape.startswith("s32") and math.prod(size) <= ROWS * TIME:
        return True
    mesh = jax.tree.leaves(plan.shardings)[0].mesh.shape
    rows, time = ROWS // (mesh["replica"] * mesh["fsdp"]), TIME // mesh["sequence"]
    if mesh["sequence"] > 1:
        heads = MODEL.num_kv_heads // mesh["tensor"]
        if size == sorted(n for n in (rows, time, heads, MODEL.head_dim) if n > 1):
            return True
    chunk = {1, CHUNK // mesh["sequence"], CHUNK, ROWS // mesh["fsdp"], ROWS, MODEL.embed_dim}
    if set(size) <= chunk and math.prod(size) <= ROWS * CHUNK * MODEL.embed_dim:
        return True
    return any(_is_part(size, x.shape, x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(plan.abstract.params))


def _is_part(size: list[int], whole: tuple[int, ...], shard: tuple[int, ...]) -> bool:
    """Whether it is a parameter's shard, of one block or of the whole stack, or one partly gathered."""
    for start in (0, 1):
        each = [sorted({n, m}) for n, m in zip(whole[start:], shard[start:])]
        options: list[list[int]] = [[]]
        for choice in each:
            options = [[*o, n] for o in options for n in choice]
        if size in (sorted(n for n in o if n > 1) for o in options):
            return True
    return False


def logits_of_many_tokens(program: Program) -> set[str]:
    """Arrays of the whole vocabulary and tokens, or of a part of it and all tokens."""
    found = set()
    for computation in program.computations.values():
        for instruction in computation.values():
            size = [n for n in dims(instruction.shape) if n > 1]
            if MODEL.vocab_size in size and set(size) - {MODEL.vocab_size, 2, 12, 24, MODEL.embed_dim}:
                found.add(instruction.shape.split("{")[0])
            if MODEL.vocab_size // 8 in size and TIME in size:
                found.add(instruction.shape.split("{")[0])
    return found


def surprises(shape: dict[str, int], devices: list[jax.Device], dtype: str = "float32") -> set[str]:
    program, plan = compiled(shape, devices, dtype)
    gathered = all_gathers(program)
    assert any(_is_part(sorted(n for n in dims(s) if n > 1), (48, 112), (12, 56)) for s in gathered) or shape != MESH
    assert len(gathered) > 5  # the program was read
    return {s for s in gathered if not is_known(s, plan)} | logits_of_many_tokens(program)


@pytest.mark.parametrize("shape", [MESH, {"fsdp": 4, "tensor": 2}], ids=str)
def test_nothing_else_is_gathered(shape: dict[str, int]) -> None:
    assert surprises(shape, jax.devices()) == set()


def test_nothing_else_is_gathered_on_tpu(tpus: list[jax.Device]) -> None:
    assert surprises(MESH, tpus, "bfloat16") == set()


def test_a_wrong_rule_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden units of the feed-forward layer whole on each device, though its kernels are not."""
    monkeypatch.setitem(ACTIVATION_RULES, "ffw", None)
    found = surprises({"fsdp": 4, "tensor": 2}, jax.devices())
    assert any(sorted(dims(s)) == sorted((ROWS // 4, TIME, MODEL.ffw_dim // 2)) for s in found), found
