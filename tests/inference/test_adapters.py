"""One base with several adapters, against ``peft`` on the same folders."""

from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

import c2s_jax
from c2s_jax.inference import Model
from c2s_jax.models import lora
from c2s_jax.models.hf import from_hf, to_hf
from c2s_jax.models.peft import save_adapter
from c2s_jax.parallel import make_mesh
from tests.models import hf_checkpoints
from tests.models.adapters import randomize
from tests.models.hf_checkpoints import reopened
from tests.text.conftest import make_gene_names, make_sentences
from tests.text.neox import train_neox

peft = pytest.importorskip("peft", reason="the oracle of adapter files; install c2s_jax[test]")

PROMPTS = ["CD3D", "Cell 1:\nHLA-DRA CD74 CD79A. The type is", " the"]
NEW = 8
# Rank, alpha, dropout and targets; the first two run in one program.
ADAPTERS = {
    "lung": (2, 4.0, 0.1, ("qkv", "down")),
    "blood": (2, 4.0, 0.0, ("qkv", "down")),
    "liver": (3, 9.0, 0.0, ("all",)),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    (folder / "source").mkdir()
    tokenizer = train_neox(folder / "source", make_sentences(make_gene_names(60)))
    torch.manual_seed(0)
    sizes = {**hf_checkpoints.NEOX, "vocab_size": 512}
    transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes)).save_pretrained(folder / "weights")
    to_hf(from_hf(folder / "weights"), folder / "base", tokenizer=tokenizer)
    return folder / "base"


@pytest.fixture(scope="module")
def adapters(base: Path) -> dict[str, Path]:
    out = {}
    for seed, (name, (rank, alpha, dropout, targets)) in enumerate(ADAPTERS.items()):
        module = from_hf(base)
        lora.add(module, lora.LoRAConfig(rank, alpha, dropout, targets), nnx.Rngs(0))
        randomize(module, seed)
        save_adapter(module, base.parent / name)
        out[name] = base.parent / name
    return out


def reference(base: Path, adapter: Path | None, model: Model) -> list[str]:
    """Greedy answers of transformers, with the adapter put on by peft."""
    theirs, tokenizer = reopened(base), transformers.AutoTokenizer.from_pretrained(base)
    if adapter:
        theirs = peft.PeftModel.from_pretrained(theirs, str(adapter))
    texts = []
    beyond = list(range(model.tokenizer.vocab_size, model.config.vocab_size))
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        written = theirs.generate(**inputs, do_sample=False, max_new_tokens=NEW, suppress_tokens=beyond)
        ids = written[0, inputs["input_ids"].shape[1] :]
        stops = np.flatnonzero(np.isin(ids, model.tokenizer.stop_ids))
        texts.append(model.tokenizer.decode((ids[: stops[0]] if len(stops) else ids).tolist()))
    return texts


def addresses(state: nnx.State) -> set[int]:
    return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)}


def test_one_base_and_several_adapters(base: Path, adapters: dict[str, Path]) -> None:
    """Each answers as peft's, in any order; the base is held once; equal shapes share a program."""
    model = c2s_jax.load(base, adapters=adapters)
    assert model.adapters == tuple(ADAPTERS)
    assert model.adapter is None
    held = addresses(model.params)
    wanted = {name: reference(base, adapters.get(name or ""), model) for name in (None, *ADAPTERS)}
    assert len({tuple(answers) for answers in wanted.values()}) == 4
    compiled = {}
    for name in (None, "lung", "blood", "liver", "lung", None):
        model.use_adapter(name)
        assert model.adapter == name
        assert model.complete(PROMPTS, NEW) == wanted[name], name
        assert held <= addresses(model.params)
        compiled[name] = (id(model._sampler), model._sampler.compiled)
    assert compiled["lung"] == compiled["blood"]
    assert len(set(compiled.values())) == 3


def test_the_scale_is_part_of_the_fingerprint(base: Path, tmp_path: Path) -> None:
    """Results of an adapter are not taken for those of one that differs in its scale alone."""
    for name, alpha in (("weak", 2.0), ("strong", 40.0)):
        module = from_hf(base)
        lora.add(module, lora.LoRAConfig(2, alpha, 0.0, ("qkv",)), nnx.Rngs(0))
        randomize(module, 0)
        save_adapter(module, tmp_path / name)
    model = c2s_jax.load(base, adapters={name: tmp_path / name for name in ("weak", "strong")})
    found = []
    for name in (None, "weak", "strong", "weak"):
        model.use_adapter(name)
        found.append(model.fingerprint)
    assert len(set(found)) == 3
    assert found[1] == found[3]


def test_on_a_mesh(base: Path, adapters: dict[str, Path]) -> None:
    model = c2s_jax.load(base, mesh=make_mesh({"fsdp": 4, "tensor": 2}))
    model.add_adapter("liver", adapters["liver"])
    model.use_adapter("liver")
    assert model.complete(PROMPTS, NEW) == reference(base, adapters["liver"], model)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(model.params)} == {8}


def test_errors(base: Path, adapters: dict[str, Path]) -> None:
    model = c2s_jax.load(base)
    with pytest.raises(ValueError, match="there is no adapter 'lung'; at hand: none; add_adapter reads one"):
        model.use_adapter("lung")
    model.add_adapter("lung", adapters["lung"])
    with pytest.raises(ValueError, match="there is no adapter 'blood'; at hand: 'lung'"):
        model.use_adapter("blood")
    with pytest.raises(ValueError, match="there is an adapter 'lung' already"):
        model.add_adapter("lung", adapters["blood"])
    with pytest.raises(FileNotFoundError, match=r"no adapter_config\.json in"):
        model.add_adapter("blood", base)
    assert model.adapters == ("lung",)
