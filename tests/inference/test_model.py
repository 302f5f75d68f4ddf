"""Text in, text out, against ``transformers`` on the same folder."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers

from c2s_jax import inference
from c2s_jax.inference import Model
from c2s_jax.models.export import save_export
from c2s_jax.models.hf import from_hf, to_hf
from c2s_jax.parallel import make_mesh
from c2s_jax.text import load_tokenizer
from tests.models import hf_checkpoints, hf_weights
from tests.models.hf_checkpoints import KINDS, reopened
from tests.text.conftest import make_gene_names, make_sentences, train_model
from tests.text.neox import train_neox

# Where mixed lengths share a batch; the second and the last are longer than the window of 8.
PROMPTS = ["CD3D", "Cell 1:\nHLA-DRA CD74 CD79A. The type is", " the", "B cell CD19 MS4A1 CD79A CD79B CD37 CD52."]
NEW = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model of each kind with a tokenizer of its own; the model has more tokens than the tokenizer."""
    sentences, out = make_sentences(make_gene_names(60)), {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        source = folder / "source"
        source.mkdir()
        if kind == "gemma2":
            tokenizer = train_model(source / "tokenizer.model", sentences, vocab_size=400)
            theirs = hf_weights.hf_model(dataclasses.replace(hf_weights.TINY, vocab_size=408))
        else:
            tokenizer = train_neox(source, sentences)
            torch.manual_seed(0)
            sizes = {**hf_checkpoints.NEOX, "vocab_size": 512}
            theirs = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes))
        theirs.save_pretrained(folder / "weights")
        ours = from_hf(folder / "weights")
        to_hf(ours, folder / "hf", tokenizer=tokenizer)
        save_export(ours, folder / "ours", tokenizer=tokenizer)
        out[kind] = folder
    return out


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture
def expected(folder: Path) -> Callable[[Model], list[str]]:
    """Function that continues the prompts with transformers, one by one."""

    def complete(model: Model) -> list[str]:
        theirs, tokenizer = reopened(folder / "hf"), transformers.AutoTokenizer.from_pretrained(folder / "hf")
        texts = []
        for prompt in PROMPTS:
            inputs = tokenizer(prompt, return_tensors="pt")
            # Rows that pad the table stand for no text.
            beyond = list(range(model.tokenizer.vocab_size, model.config.vocab_size))
            written = theirs.generate(**inputs, do_sample=False, max_new_tokens=NEW, suppress_tokens=beyond or None)
            ids = written[0, inputs["input_ids"].shape[1] :]
            stops = np.flatnonzero(np.isin(ids, model.tokenizer.stop_ids))
            ids = ids[: stops[0]] if len(stops) else ids
            texts.append(model.tokenizer.decode(ids.tolist()))
        return texts

    return complete


def test_completions_are_those_of_transformers(folder: Path, expected: Callable[[Model], list[str]]) -> None:
    """From a Hugging Face folder, from our own, and on a mesh."""
    models = [inference.load(folder / "hf"), inference.load(str(folder / "ours"))]
    models.append(inference.load(folder / "hf", mesh=make_mesh({"fsdp": 4, "tensor": 2})))
    wanted = expected(models[0])
    assert len({*wanted}) == len(wanted)
    for model in models:
        assert model.complete(PROMPTS, NEW) == wanted
    assert len(models[2].params["embedding"].get_value().sharding.device_set) == 8


def test_what_a_model_holds(folder: Path) -> None:
    model = inference.load(folder / "ours", dtype="bfloat16", attention_chunk=64)
    assert (model.config.dtype, model.config.param_dtype, model.config.attention_chunk) == ("bfloat16", "bfloat16", 64)
    assert {str(x.dtype) for x in jax.tree.leaves(model.params)} == {"bfloat16"}
    assert model.tokenizer.fingerprint == load_tokenizer(folder / "hf").fingerprint
    assert model.module(np.ones((1, 3), np.int32)).shape == (1, 3, model.config.vocab_size)


def test_sampling(folder: Path) -> None:
    """Draws depend on the seed; top_k=1 is the most probable token again."""
    model = inference.load(folder / "hf")
    draw = partial(model.complete, PROMPTS, NEW, temperature=3.0)
    assert draw(seed=1) == draw(seed=1)
    assert draw(seed=1) != draw(seed=2)
    assert draw(top_k=1) == model.complete(PROMPTS, NEW)


def test_prompts_and_answers_beyond_the_context(folder: Path) -> None:
    model = inference.load(folder / "hf", context=12)
    length = len(model.tokenizer.encode("CD3D CD3D")) + (model.tokenizer.bos_id is not None)
    assert model.complete(["CD3D CD3D"], 12 - length)
    with pytest.raises(ValueError, match=rf"prompt 1 takes {length} tokens and its answer up to {13 - length}; .* 12"):
        model.complete(["CD3D", "CD3D CD3D"], 13 - length)
    with pytest.raises(ValueError, match="leaves no room for a prompt"):
        model.complete(["CD3D"], 12)


def test_automata_of_stop_strings_are_kept(folders: dict[str, Path]) -> None:
    model = inference.load(folders["gemma2"] / "ours")
    (whole,) = model.complete(PROMPTS[:1], NEW)
    stop = whole[len(whole) // 2]
    assert model.complete(PROMPTS[:1], NEW, stop_strings=[stop]) == [whole[: whole.index(stop)]]
    kept = model._stops_at([stop])
    assert model._stops_at((stop,)) is kept is not model._stops_at([stop, "x"])
    with pytest.raises(TypeError, match="stop_strings must be a list of texts"):
        model.complete(PROMPTS[:1], NEW, stop_strings=stop)


def test_errors(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders["gemma2"]
    with pytest.raises(TypeError, match="a list of texts"):
        inference.load(folder / "ours").complete("CD3D", 3)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.model or tokenizer\.json in"):
        inference.load(folder / "weights")
    larger = train_model(tmp_path / "tokenizer.model", make_sentences(make_gene_names()), vocab_size=700)
    with pytest.raises(ValueError, match="the tokenizer has 700 pieces, the model 408"):
        inference.load(folder / "weights", tokenizer=larger)
    assert inference.load(folder / "weights", tokenizer=folder / "hf").complete(["CD3D"], 1)
