"""A language model with its tokenizer: what runs on the device, and between texts and tokens."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from threading import RLock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from numpy.typing import NDArray

from c2s_jax.cells import GeneVocabulary
from c2s_jax.data import Formatter
from c2s_jax.generation import (
    GeneDrafts,
    GeneGrammar,
    LabelScorer,
    Sampler,
    Samples,
    Sampling,
    StopStrings,
    answer_tokens,
)
from c2s_jax.inference.adapters import Adapters
from c2s_jax.inference.card import ModelCard
from c2s_jax.inference.pooling import Pooler
from c2s_jax.models import Decoder, ModelConfig
from c2s_jax.text import GeneTokenTable, Tokenizer

KEPT_FORMATTERS = 4
DEFAULT_CONTEXT = 2048
BATCH_SIZE = 16


class LanguageModel(Adapters):
    """A language model ready for use.

    Attributes
    ----------
    graphdef, params
        Structure and weights, as ``nnx.merge`` takes them.
    config
        Architecture.
    tokenizer
        Of the checkpoint.
    mesh
        Devices that hold the weights.
    card
        Genes, labels and rank→expression lines it brings; None for checkpoints that bring none.
    source
        Where it was loaded from.
    context
        Tokens it reads at once.
    """

    PROGRAMS = ("scorer", "pooler", "_sampler")
    RESULTS = ("fingerprint",)

    def __init__(
        self,
        module: Decoder,
        tokenizer: Tokenizer,
        mesh: Mesh,
        *,
        card: ModelCard | None = None,
        source: str = "",
        context: int | None = None,
    ):
        if tokenizer.vocab_size > module.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size:,} pieces, the model {module.config.vocab_size:,}: "
                "it is not this model's"
            )
        super().__init__(module, mesh)
        self.config: ModelConfig = module.config
        self.tokenizer, self.card, self.source = tokenizer, card, source
        self.context = context or (card.context if card else DEFAULT_CONTEXT)
        self._formatters: dict[GeneVocabulary, Formatter] = {}
        self._grammars: dict[tuple[GeneVocabulary, int], GeneGrammar] = {}
        self._stops: dict[tuple[str, ...], StopStrings] = {}
        self._drafted: tuple[GeneGrammar, GeneDrafts] | None = None
        self._lock = RLock()

    def __repr__(self) -> str:
        known = f", {len(self.card.genes):,} genes, {len(self.card.tasks)} tasks" if self.card else ""
        return f"Model({self.source!r}: {type(self.config).__name__.removesuffix('Config')}{known})"

    @property
    def module(self) -> Decoder:
        """The module itself: called with tokens [B, T] it gives logits [B, T, V]."""
        return nnx.merge(self.graphdef, self.params)

    def complete(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        stop_strings: Sequence[str] = (),
    ) -> list[str]:
        """Continue each prompt until a stop token or ``max_new_tokens``; the prompt is not repeated.

        Parameters
        ----------
        prompts
            Texts; whatever begins a sequence for this tokenizer is put before them.
        max_new_tokens
            Most tokens an answer.
        temperature, top_k, top_p
            How a token is drawn (``generation.Sampling``); by default the most probable one.
        seed
            Of the draws; an answer depends on it and on the prompt's place in the list.
        stop_strings
            Texts that end an answer, too; it is cut before the first.

        Raises
        ------
        ValueError
            If a prompt and its answer are more than the model reads; names the prompt.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts must be a list of texts, not one text")
        bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        tokens = [np.array(bos + ids, np.int32) for ids in self.tokenizer.encode_batch(prompts)]
        limit = self.limit(max_new_tokens)
        if long := [i for i, row in enumerate(tokens) if len(row) > limit]:
            raise ValueError(
                f"prompt {long[0]} takes {len(tokens[long[0]]):,} tokens and its answer up to {max_new_tokens:,}; the "
                f"model reads {self.context:,}: shorten the prompt, or lower max_new_tokens"
            )
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
        stops = self._stops_at(stop_strings) if stop_strings else None
        found = self.sample(tokens, max_new_tokens, sampling, seed=seed, stop_strings=stops)
        return found.texts(self.tokenizer.decode, stop_strings)

    def sample(
        self,
        prompts: Sequence[NDArray[np.int32]],
        max_new_tokens: int,
        sampling: Sampling,
        **options: Any,
    ) -> Samples:
        """Answers to prompts that are tokens already; ``options`` are those of ``generation.Sampler``."""
        return self._sampler(self.params, prompts, max_new_tokens=max_new_tokens, sampling=sampling, **options)

    def limit(self, room: int) -> int:
        """Tokens of a prompt that leaves ``room`` for its answer.

        Raises
        ------
        ValueError
            If the answer alone takes all that the model reads.
        """
        if room >= self.context - 1:
            raise ValueError(
                f"an answer of {room:,} tokens leaves no room for a prompt: the model reads {self.context:,}"
            )
        return self.context - room

    def answer_tokens(self, answers: Sequence[str]) -> list[list[int]]:
        """Tokens of whole answers, the one that ends them included."""
        return answer_tokens(self.tokenizer, answers)

    def grammar(self, vocabulary: GeneVocabulary, n_genes: int) -> GeneGrammar:
        """Lists of so many genes, each once, and a period: what is sampled with it names nothing else."""
        with self._lock:
            if (vocabulary, n_genes) not in self._grammars:
                table = self.formatter(vocabulary).table
                while len(self._grammars) >= KEPT_FORMATTERS:
                    self._grammars.pop(next(iter(self._grammars)))
                made = GeneGrammar.build(table, self.tokenizer.eos_id, exactly=n_genes)
                self._grammars[vocabulary, n_genes] = made
            return self._grammars[vocabulary, n_genes]

    def _stops_at(self, strings: Sequence[str]) -> StopStrings:
        """Ends answers at these texts; those of the last few lists are kept, for each reads the whole vocabulary."""
        if isinstance(strings, str):
            raise TypeError("stop_strings must be a list of texts, not one text")
        with self._lock:
            if tuple(strings) not in self._stops:
                while len(self._stops) >= KEPT_FORMATTERS:
                    self._stops.pop(next(iter(self._stops)))
                self._stops[tuple(strings)] = StopStrings.build(self.tokenizer, strings)
            return self._stops[tuple(strings)]

    def drafts(self, vocabulary: GeneVocabulary, grammar: GeneGrammar) -> GeneDrafts:
        """Guesses of the names that training cells have most, for lists that follow ``grammar``.

        Raises
        ------
        ValueError
            If the model does not know how frequent its genes are.
        """
        if self.card is None or self.card.gene_counts is None or vocabulary != self.card.genes:
            raise ValueError(
                "names are drafted by their frequency in training, which this model does not bring (gene_counts in a "
                "c2s.json beside its weights, written by c2s_jax.convert); generate with drafts=False"
            )
        with self._lock:
            if self._drafted is None or self._drafted[0] is not grammar:
                table, counts = self.formatter(vocabulary).table, np.array(self.card.gene_counts)
                made = GeneDrafts.build(table, grammar, counts, vocab_size=self.config.vocab_size)
                self._drafted = grammar, made
            return self._drafted[1]

    def formatter(self, vocabulary: GeneVocabulary) -> Formatter:
        """Writes prompts with these genes; the last few are kept."""
        with self._lock:
            if vocabulary not in self._formatters:
                table = GeneTokenTable.build(self.tokenizer, vocabulary.names)
                while len(self._formatters) >= KEPT_FORMATTERS:
                    self._formatters.pop(next(iter(self._formatters)))
                self._formatters[vocabulary] = Formatter(self.tokenizer, table)
            return self._formatters[vocabulary]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of architecture, weights and tokenizer, by which results of other weights are told apart."""
        state = hashlib.blake2b(f"{self.config}{self.tokenizer.fingerprint}".encode(), digest_size=12)
        for path, leaf in jax.tree.leaves_with_path(self.params):
            sums = np.asarray(_sums(leaf), np.float32)
            state.update(f"{jax.tree_util.keystr(path)}{leaf.shape}".encode() + sums.tobytes())
        for path, variable in nnx.to_flat_state(self.params):
            if (scale := variable.get_metadata().get("scale")) is not None:  # of an adapter, beside its arrays
                state.update(f"{path}{scale}".encode())
        return state.hexdigest()

    @cached_property
    def longest_piece(self) -> int:
        """Most characters of a token."""
        return max(len(self.tokenizer.piece(i)) for i in range(self.tokenizer.vocab_size))

    @cached_property
    def scorer(self) -> LabelScorer:
        """Scores given answers."""
        t = self.tokenizer
        return LabelScorer(self.graphdef, pad_id=t.pad_id, vocab_size=t.vocab_size, mesh=self.mesh)

    @cached_property
    def pooler(self) -> Pooler:
        """Makes embeddings."""
        skip = 0 if self.tokenizer.bos_id is None else 1
        return Pooler(self.graphdef, pad_id=self.tokenizer.pad_id, mesh=self.mesh, skip=skip)

    @cached_property
    def _sampler(self) -> Sampler:
        t = self.tokenizer
        return Sampler(
            self.graphdef,
            stop_ids=t.stop_ids,
            pad_id=t.pad_id,
            vocab_size=t.vocab_size,
            batch_size=BATCH_SIZE,
            mesh=self.mesh,
        )


@jax.jit
def _sums(x: jax.Array) -> jax.Array:
    values = x.astype(jnp.float32).reshape(-1)
    return jnp.stack([jnp.sum(values), jnp.sum(jnp.abs(values)), jnp.sum(values * jnp.cos(jnp.arange(values.size)))])
