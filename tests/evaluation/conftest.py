"""Real cells, and a model of two layers whose sampler can be replaced by one that answers as told."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from c2s_jax.data import Corpus, Formatter
from c2s_jax.evaluation import Context
from c2s_jax.evaluation.context import sentences_of
from c2s_jax.generation import Sampler, Samples
from c2s_jax.models import Gemma2, Gemma2Config
from c2s_jax.parallel import make_mesh
from c2s_jax.text import GeneTokenTable, load_tokenizer


class Told:
    """Stands for the sampler: writes ``answers[i]`` to prompt i and keeps what it was asked."""

    def __init__(self, tokenizer, answers: Sequence[str], logprobs: Sequence[float] | None = None):
        self.tokenizer, self.answers = tokenizer, answers
        self.logprobs = np.zeros(len(answers)) if logprobs is None else np.array(logprobs)
        self.prompts: list[str] = []

    def __call__(
        self, params, prompts, *, max_new_tokens: int, sampling, seed: int, progress: Callable, grammar=None
    ) -> Samples:
        t = self.tokenizer
        assert len(prompts) == len(self.answers)
        assert all(p[0] == t.bos_id for p in prompts)
        self.prompts, self.sampling = [t.decode(p.tolist()) for p in prompts], sampling
        tokens = np.full((len(prompts), max_new_tokens), t.pad_id, np.int32)
        logprobs, lengths = np.zeros(tokens.shape, np.float32), np.zeros(len(prompts), np.int32)
        for i, answer in enumerate(self.answers):
            ids = [*t.encode(answer), t.eos_id]
            assert len(ids) <= max_new_tokens, "the limit would cut this answer off"
            tokens[i, : len(ids)], lengths[i] = ids, len(ids)
            logprobs[i, 0] = self.logprobs[i]
        return Samples(tokens, logprobs, lengths, np.ones(len(prompts), bool), lengths)


class Knowing:
    """Stands for the sampler: answers as told by prompt, and to other prompts with what it was told first."""

    def __init__(self, pieces, known: dict[bytes, str]):
        self.tokenizer, self.known, self.asked = pieces, known, []

    def __call__(self, params, prompts, *, max_new_tokens, sampling, seed, progress: Callable, grammar=None) -> Samples:
        other = next(iter(self.known.values()))
        answers = [self.known.get(p.tobytes(), other) for p in prompts]
        self.asked.append((len(prompts), sum(p.tobytes() in self.known for p in prompts), sampling.temperature))
        tokens = np.full((len(prompts), max_new_tokens), self.tokenizer.pad_id, np.int32)
        lengths = np.zeros(len(prompts), np.int32)
        for i, answer in enumerate(answers):
            ids = [*self.tokenizer.encode(answer), self.tokenizer.eos_id]
            assert len(ids) <= max_new_tokens, "the limit would cut this answer off"
            tokens[i, : len(ids)], lengths[i] = ids, len(ids)
        return Samples(tokens, np.zeros(tokens.shape, np.float32), lengths, np.ones(len(prompts), bool), lengths)


class Perturbed:
    """The bundled corpus with perturbations that it does not have: every third cell is a control."""

    def __init__(self, held: Any):
        self.held = held

    def __getattr__(self, name: str) -> Any:
        return getattr(self.held, name)

    def __len__(self) -> int:
        return len(self.held)

    @property
    def datasets(self) -> list[dict]:
        return [{**d, "control": "ctrl"} for d in self.held.datasets]

    def cells(self, split: str) -> "Perturbed":
        return Perturbed(self.held.cells(split))

    def fields(self, name: str) -> np.ndarray:
        if name != "perturbation":
            return self.held.fields(name)
        return np.array(["ctrl", "IFN-beta", "drug"])[np.arange(len(self)) % 3]

    def field_codes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        values, codes = np.unique(self.fields(name), return_inverse=True)
        return codes.astype(np.int32), values


@pytest.fixture(scope="session")
def context(bundle) -> Context:
    corpus, tokenizer = Corpus(bundle.corpus), load_tokenizer(bundle.tokenizer)
    config = Gemma2Config(
        vocab_size=tokenizer.vocab_size,
        embed_dim=16,
        ffw_dim=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8.0,
        sliding_window=8,
        attention_chunk=32,
    )
    graphdef, params = nnx.split(Gemma2(config, rngs=nnx.Rngs(0)), nnx.Param)
    mesh = make_mesh({}, jax.devices()[:1])
    sampler = Sampler(graphdef, stop_ids=tokenizer.stop_ids, pad_id=tokenizer.pad_id, batch_size=8, mesh=mesh)
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
    return Context(graphdef, params, mesh, corpus, formatter, sampler, max_genes=200)


@pytest.fixture
def telling(context) -> Callable[..., Context]:
    """Function that gives a context whose model answers as told."""

    def make(answers: Sequence[str], logprobs: Sequence[float] | None = None, **changes) -> Context:
        told = Told(context.formatter.tokenizer, answers, logprobs)
        return dataclasses.replace(context, sampler=told, **changes)

    return make


@pytest.fixture
def corpus(context) -> Perturbed:
    """The bundled corpus, perturbed."""
    return Perturbed(context.corpus)


@pytest.fixture
def repeating(context, telling, corpus) -> Callable[..., Context]:
    """Function that gives a context whose model writes the sentences of some held-out cells, whatever it is asked."""

    def make(rows: np.ndarray, world: Any = corpus) -> Context:
        lists = sentences_of(world.cells("test"), rows, context.max_genes).lists()
        return telling([f" {' '.join(world.genes.names[g] for g in genes)}." for genes in lists], corpus=world)

    return make
