"""The splash kernel compiled ahead of time for TPUs, at the sizes of Gemma-2, without a TPU."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from c2s_jax.ops import attend, choose_backend
from c2s_jax.parallel import activation_rules, batch_sharding, make_mesh

ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # ask no metadata server what machine this is
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # other test processes compile, too
    "TPU_LOG_DIR": "disabled",
}
TIME = 8192


@pytest.fixture(autouse=True, scope="module")
def _compiler() -> Iterator[None]:
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        # Programs for devices that are elsewhere can be written to JAX's cache, but not read.
        cached = jax.config.jax_enable_compilation_cache
        jax.config.update("jax_enable_compilation_cache", False)
        yield
        jax.config.update("jax_enable_compilation_cache", cached)


ROWS_AND_HEADS = {"fsdp": 2, "tensor": 2}


def compile_step(
    topology: str,
    shape: tuple[int, int, int],
    time: int,
    windows: tuple[Any, ...],
    policy: Any,
    mesh_shape: dict[str, int] = ROWS_AND_HEADS,
) -> Any:
    """Gradient of packed attention, once a window, on four chips."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[:4]
    mesh = make_mesh(mesh_shape, devices)
    heads, kv_heads, head_dim = shape
    rows = PartitionSpec(("replica", "fsdp"), "sequence", "tensor")
    ids = jax.ShapeDtypeStruct((2, time), jnp.int32, sharding=batch_sharding(mesh))
    q, k, v = (
        jax.ShapeDtypeStruct((2, time, n, head_dim), jnp.bfloat16, sharding=NamedSharding(mesh, rows))
        for n in (heads, kv_heads, kv_heads)
    )
    backend = choose_backend(devices[0], head_dim=head_dim, dtype="bfloat16", softcap=50.0).backend

    def loss(q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array) -> jax.Array:
        options = dict(positions=ids, segment_ids=ids, softcap=50.0, scale=0.1, backend=backend)
        for window in windows:
            layer = jax.checkpoint(partial(attend, window=window, **options), policy=policy)
            q = jnp.sin(layer(q, k, v))
        return jnp.sum(jnp.square(q.astype(jnp.float32)))

    with jax.set_mesh(mesh), activation_rules():
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, k, v, ids).compile()


def kernels(compiled: Any) -> list[str]:
    return sorted(re.findall(r"%splash_mha_([a-z]+)_\S+ = ", compiled.as_text()))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(32, 16, 128), (16, 8, 256)], ids=["27b", "9b"])
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v5e:2x2", "v6e:2x2"])
def test_compiles_in_linear_memory(topology: str, shape: tuple[int, int, int]) -> None:
    """A local and a global layer; no temporary is anywhere near the size of one row's scores."""
    compiled = compile_step(topology, shape, TIME, (4096, None), jax.checkpoint_policies.everything_saveable)
    assert kernels(compiled) == ["dkv", "dkv", "dq", "dq", "fwd", "fwd"]
    scores = 4 * shape[0] // 2 * TIME * TIME
    assert compiled.memory_analysis().temp_size_in_bytes < scores / 8


def test_forward_kernel_is_not_run_again_when_its_output_is_saved() -> None:
    shape, windows = (4, 2, 128), (100,)
    saved = jax.checkpoint_policies.save_only_these_names("context")
    assert kernels(compile_step("v5e:2x2", shape, 1024, windows, None)) == ["dkv", "dq", "fwd", "fwd"]
    assert kernels(compile_step("v5e:2x2", shape, 1024, windows, saved)) == ["dkv", "dq", "fwd"]


def test_compiles_with_rows_split_over_chips() -> None:
    """Each chip runs the kernels on its quarter of the queries; keys are gathered, their gradients scattered."""
    shape, time = (4, 2, 128), 2048
    compiled = compile_step("v5e:2x2", shape, time, (100, None), None, {"sequence": 4})
    assert kernels(compiled) == ["dkv", "dkv", "dq", "dq", "fwd", "fwd", "fwd", "fwd"]
    text = compiled.as_text()
    assert re.search(r"bf16\[[\d,]*512[\d,]*\]\S* custom-call\(.*tpu_custom_call", text)  # queries' results
    assert "all-gather" in text
    assert "reduce-scatter" in text
