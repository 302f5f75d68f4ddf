"""Import and export against ``transformers``: the same logits, the same greedy tokens, the same bits."""

import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from numpy.typing import NDArray
from safetensors.numpy import save_file

from c2s_jax.generation import Sampler, Sampling
from c2s_jax.models import Decoder, hf_tensors
from c2s_jax.models.export import load_export, save_export
from c2s_jax.models.hf import from_hf, to_hf
from c2s_jax.models.linear import Linear
from c2s_jax.models.lora import LoRAConfig, add
from c2s_jax.models.safetensors_files import SafetensorsFolder
from c2s_jax.parallel import make_mesh, parameter_shardings
from c2s_jax.text import load_tokenizer
from tests.models.hf_checkpoints import (
    KINDS,
    checkpoint_of_bits,
    hf_logits,
    hf_model,
    reopened,
    stored,
    tokens,
)
from tests.text.conftest import make_gene_names, make_sentences, train_model
from tests.text.neox import train_neox

TOLERANCE = 1e-4
VISIBLE = 1e-2
SMALL = 20_000  # bytes a shard: several shards

# Every axis of the mesh is used; 4 divides the fsdp dimensions, 2 the heads.
MESH = {"replica": 1, "fsdp": 4, "tensor": 2}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Function that gives the folder of a tiny checkpoint in shards."""
    folders: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            hf_model(kind).save_pretrained(folders[kind], max_shard_size="20KB")
        return folders[kind]

    return make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], kind: str) -> Path:
    return checkpoint(kind)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small tokenizers of each kind; the models have fewer tokens, which does not matter here."""
    sentences = make_sentences(make_gene_names(60))
    gemma = train_model(tmp_path_factory.mktemp("gemma") / "tokenizer.model", sentences, vocab_size=400)
    return {"gemma2": gemma, "gpt_neox": train_neox(tmp_path_factory.mktemp("neox"), sentences)}


def on_mesh(params: nnx.State) -> nnx.State:
    return parameter_shardings(params, make_mesh(MESH))


def logits_of(model: Decoder, ids: NDArray) -> NDArray:
    graphdef, params = nnx.split(model)
    return np.asarray(jax.jit(lambda p, t: nnx.merge(graphdef, p)(t))(params, ids))


def test_import_gives_the_same_logits(folder: Path, tmp_path: Path) -> None:
    """From shards and from one file."""
    theirs = reopened(folder)
    expected = hf_logits(theirs, tokens())
    assert expected.std() > 0.5  # or nothing would be compared
    theirs.save_pretrained(tmp_path)
    assert (folder / "model.safetensors.index.json").exists()
    assert not (tmp_path / "model.safetensors.index.json").exists()
    for path in (folder, tmp_path):
        model = from_hf(str(path))
        assert (model.config.dtype, model.config.param_dtype) == ("float32", "float32")
        np.testing.assert_allclose(logits_of(model, tokens()), expected, rtol=0, atol=TOLERANCE)


def test_export_gives_the_same_logits_and_greedy_tokens(folder: Path, tmp_path: Path) -> None:
    """Our own weights, opened by transformers: one file and shards."""
    model = from_hf(folder)
    for _, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        variable.set_value(jax.numpy.flip(variable.get_value()) * 0.9)  # no longer what any file held
    for target, size in ((tmp_path / "one", 2**30), (tmp_path / "shards", SMALL)):
        to_hf(model, target, max_shard_size=size)
        theirs = reopened(target)
        np.testing.assert_allclose(logits_of(model, tokens()), hf_logits(theirs, tokens()), rtol=0, atol=TOLERANCE)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    assert not list(tmp_path.rglob("*tmp*"))

    prompts = [tokens()[0, :n] for n in (2, 9, 20)]
    sampler = Sampler(nnx.graphdef(model), stop_ids=(), batch_size=3, mesh=make_mesh({"fsdp": 1}, jax.devices()[:1]))
    found = sampler(nnx.state(model), prompts, max_new_tokens=16, sampling=Sampling(temperature=0)).tokens
    for prompt, ours in zip(prompts, found):
        ids = torch.from_numpy(prompt).long()[None]
        wanted = theirs.generate(ids, do_sample=False, max_new_tokens=16, attention_mask=torch.ones_like(ids))
        np.testing.assert_array_equal(ours, wanted[0, len(prompt) :].numpy())


@pytest.mark.parametrize(
    ("dtype", "shardings"),
    [("float32", on_mesh), ("bfloat16", None), ("bfloat16", on_mesh), ("float16", None)],
    ids=["float32 on a mesh", "bfloat16", "bfloat16 on a mesh", "float16"],
)
def test_round_trips_are_bit_exact(folder: Path, tmp_path: Path, dtype: str, shardings: Any) -> None:
    """Theirs → ours → theirs, and theirs → ours → our format → ours → theirs."""
    source = tmp_path / "bits"
    expected = checkpoint_of_bits(folder, source, dtype)
    model = from_hf(source, dtype=dtype, shardings=shardings)
    to_hf(model, tmp_path / "again", max_shard_size=SMALL)
    save_export(model, tmp_path / "ours")
    to_hf(load_export(tmp_path / "ours", shardings=shardings), tmp_path / "through ours")
    for target in ("again", "through ours"):
        found = stored(tmp_path / target)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            assert found[name].tobytes() == value.tobytes(), name


def test_dtypes(folder: Path, tmp_path: Path) -> None:
    """bfloat16 stays, float16 becomes float32 (which holds all its values), and one may ask for another."""
    theirs = reopened(folder)
    for name in ("bfloat16", "float16"):
        theirs.to(getattr(torch, name)).save_pretrained(tmp_path / name)
    half, narrow = from_hf(tmp_path / "float16"), from_hf(tmp_path / "bfloat16")
    assert (half.config.dtype, half.config.param_dtype) == ("float32", "float32")
    assert (narrow.config.dtype, narrow.config.param_dtype) == ("bfloat16", "bfloat16")
    assert {str(v.dtype) for v in jax.tree.leaves(nnx.state(narrow))} == {"bfloat16"}
    mixed = from_hf(folder, dtype="bfloat16", param_dtype="float32", remat="full")
    assert (mixed.config.dtype, mixed.config.param_dtype, mixed.config.remat) == ("bfloat16", "float32", "full")
    assert str(mixed.embedding.get_value().dtype) == "float32"

    expected = hf_logits(reopened(tmp_path / "bfloat16"), tokens())
    wide = from_hf(tmp_path / "bfloat16", dtype="float32")
    np.testing.assert_allclose(logits_of(wide, tokens()), expected, rtol=0, atol=TOLERANCE)
    to_hf(wide, tmp_path / "out", dtype="bfloat16")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    for name, value in stored(tmp_path / "bfloat16").items():
        assert stored(tmp_path / "out")[name].tobytes() == value.tobytes()
    # One tensor in float32, like a norm kept apart, makes the whole float32.
    tensors = stored(tmp_path / "bfloat16")
    name = next(name for name in tensors if "norm" in name)
    save_file({**tensors, name: tensors[name].astype(np.float32)}, tmp_path / "bfloat16" / "model.safetensors")
    assert from_hf(tmp_path / "bfloat16").config.param_dtype == "float32"
    # Rounded to nearest, as torch does.
    rounded = from_hf(folder, dtype="bfloat16")
    to_hf(rounded, tmp_path / "rounded")
    reference = reopened(folder).to(torch.bfloat16).state_dict()
    for name, value in stored(tmp_path / "rounded").items():
        name = name.replace("embed_out", "lm_head")
        np.testing.assert_array_equal(value.view(np.uint16), reference[name].view(torch.uint16).numpy())


def test_parameters_lie_where_they_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a mesh: the same values, each tensor split, and a part that several devices hold read once."""
    reads: list[tuple[str, int]] = []
    read = SafetensorsFolder.read

    def counted(self: SafetensorsFolder, name: str, index: Any = None) -> NDArray:
        part = read(self, name, index)
        reads.append((name, part.size))
        return part

    monkeypatch.setattr(SafetensorsFolder, "read", counted)
    model = from_hf(folder, shardings=on_mesh)
    total = sum(int(np.prod(info.shape)) for info in SafetensorsFolder(folder).tensors.values())
    assert sum(size for _, size in reads) == total
    assert len(set(reads)) < len(reads)  # in parts

    expected = dict(nnx.to_flat_state(nnx.state(from_hf(folder))))
    shardings = dict(nnx.to_flat_state(on_mesh(nnx.state(model))))
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        value = variable.get_value()
        assert value.sharding.is_equivalent_to(shardings[path].get_value(), value.ndim), path
        np.testing.assert_array_equal(value, expected[path].get_value(), err_msg=str(path))
    np.testing.assert_allclose(
        logits_of(model, tokens()), hf_logits(reopened(folder), tokens()), rtol=0, atol=TOLERANCE
    )


def test_tokenizer_comes_along(kind: str, folder: Path, tokenizers: dict[str, Path], tmp_path: Path) -> None:
    """AutoTokenizer opens it, and generate() stops where our sampler does."""
    to_hf(from_hf(folder), tmp_path / "out", tokenizer=tokenizers[kind], max_position_embeddings=8192)
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = load_tokenizer(tokenizers[kind])
    text = " HLA-DRA CD3D."
    bos = [] if ours.bos_id is None else [ours.bos_id]
    assert opened(text)["input_ids"] == bos + ours.encode(text)
    config = reopened(tmp_path / "out").config
    assert (config.eos_token_id, config.pad_token_id, config.bos_token_id) == (ours.eos_id, ours.pad_id, ours.bos_id)
    assert config.max_position_embeddings == 8192
    stops = transformers.GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id
    assert tuple(np.atleast_1d(stops)) == ours.stop_ids
    assert (len(ours.stop_ids) > 1) == (kind == "gemma2")


def test_what_is_not_exported(folder: Path, tmp_path: Path) -> None:
    model = from_hf(folder)
    model.embedding[...] = model.embedding[...].at[3, 3].set(1e5)
    with pytest.raises(ValueError, match=r"tensor \S*embed\S*\.weight has values beyond float16"):
        to_hf(model, tmp_path / "out", dtype="float16")
    add(model, LoRAConfig(rank=2), nnx.Rngs(0))
    for export in (to_hf, save_export):
        with pytest.raises(ValueError, match="carries an adapter: merge it"):
            export(model, tmp_path / "out")
    model = from_hf(folder)
    path, linear = next((path, m) for path, m in nnx.iter_modules(model) if isinstance(m, Linear))
    linear.kernel_scale = nnx.Param(jax.numpy.ones(3))
    for export in (to_hf, save_export):
        with pytest.raises(ValueError, match=f"{'.'.join(map(str, path))} is quantized"):
            export(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())  # neither the folder nor its beginnings


def test_existing_folders_are_not_touched(folder: Path, tmp_path: Path) -> None:
    model = from_hf(folder)
    (tmp_path / "kept").write_text("mine")
    for export in (to_hf, save_export):
        with pytest.raises(FileExistsError, match="exists already"):
            export(model, tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    (tmp_path / "empty").mkdir()
    to_hf(model, tmp_path / "empty")
    from_hf(tmp_path / "empty")


def test_progress_is_told_in_bytes(folder: Path, tmp_path: Path) -> None:
    for run in (partial(from_hf, folder), partial(to_hf, from_hf(folder), tmp_path / "out", dtype="bfloat16")):
        told: list[tuple[int, int]] = []
        run(progress=lambda done, total, told=told: told.append((done, total)))
        assert len(told) > 10
        assert {total for _, total in told} == {sum(done for done, _ in told)}
    assert told[0][1] == sum(v.nbytes for v in stored(tmp_path / "out").values())


# -------------------------------------------------------------------------------------------------- mutations


def swapped(kind: str, a: str, b: str) -> hf_tensors.Names:
    """Names under which two of our modules hold each other's tensors."""
    layer = hf_tensors.NAMES[kind].layer
    return hf_tensors.NAMES[kind]._replace(layer={**layer, a: layer[b], b: layer[a]})


GEMMA_NORMS = ("pre_attention_norm", "post_attention_norm", "pre_ffw_norm", "post_ffw_norm")
WRONG_NAMES = {
    **{f"{a} and {b}": ("gemma2", swapped("gemma2", a, b)) for a, b in itertools.combinations(GEMMA_NORMS, 2)},
    "k and v": ("gemma2", swapped("gemma2", "attention.k", "attention.v")),
    "gate and up": ("gemma2", swapped("gemma2", "ffw.gate", "ffw.up")),
    "global layer first": ("gemma2", hf_tensors.NAMES["gemma2"]._replace(kinds=("global_layer", "local_layer"))),
    "norms": ("gpt_neox", swapped("gpt_neox", "attention_norm", "ffw_norm")),
}


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_parity_sees_wrong_names(checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    kind, names = WRONG_NAMES[name]
    monkeypatch.setitem(hf_tensors.NAMES, kind, names)
    assert_wrong(checkpoint(kind))


def not_transposed(split: tuple, rows: int, order: tuple) -> tuple:
    """Square kernels as they lie in the file."""
    square = np.prod(split[:rows]) == np.prod(split[rows:])
    axes = tuple(range(rows, len(split)))
    return ((*(split[a] for a in axes), *split[:rows]), len(axes), tuple(range(len(split)))) if square else ()


def rows_reversed(split: tuple, rows: int, order: tuple) -> tuple:
    """[E, H] where there is [H, E], [E, 3, H] where there is [H, 3, E]."""
    where = dict(zip(range(rows), reversed(range(rows))))
    return (*split[:rows][::-1], *split[rows:]), rows, tuple(where.get(axis, axis) for axis in order)


def columns_reversed(split: tuple, rows: int, order: tuple) -> tuple:
    """The same of inputs: [E, H] where there is [H, E]."""
    axes = range(rows, len(split))
    where = dict(zip(axes, reversed(axes)))
    return (*split[:rows], *split[rows:][::-1]), rows, tuple(where.get(axis, axis) for axis in order)


WRONG_AXES = [
    ("gpt_neox", not_transposed),  # Gemma's tiny kernels are not square: shapes would tell
    *itertools.product(KINDS, [rows_reversed, columns_reversed]),
]


@pytest.mark.parametrize(("kind", "wrong"), WRONG_AXES, ids=lambda x: getattr(x, "__name__", x))
def test_parity_sees_wrong_axes(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, kind: str, wrong: Any
) -> None:
    right = hf_tensors._axes

    def axes(model: Any, path: Any, shape: Any) -> Any:
        found = right(model, path, shape)
        return (wrong(*found) or found) if path[-1] == "kernel" else found

    monkeypatch.setattr(hf_tensors, "_axes", axes)
    assert_wrong(checkpoint(kind))


def assert_wrong(folder: Path) -> None:
    expected = hf_logits(reopened(folder), tokens())
    assert np.abs(logits_of(from_hf(folder), tokens()) - expected).max() > VISIBLE
