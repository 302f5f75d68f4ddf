"""Answers of several cells: what the training format writes is allowed, and nothing else comes out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from c2s_jax.data import Corpus, Formatter, request
from c2s_jax.generation import CellsGrammar, Sampler, Sampling
from c2s_jax.generation.sampling import NEVER
from c2s_jax.tasks import load_templates
from c2s_jax.tasks.parsing import parse_sentences
from c2s_jax.text import GeneTokenTable, load_tokenizer
from tests.generation.tiny import Teacher, TinyModel, distribution, one_device
from tests.generation.toy_names import END, PIECES, all_lists, table_of

GENES = ["A", "AB", "B", "BC"]
HEADERS = {" Cell 1:\n": [40, 41], "\nCell 2:\n": [42, 43, 41], "\nCell 3:\n": [42, 44, 41]}


class Toy:
    """Headers in tokens of their own."""

    eos_id = END

    def encode_batch(self, texts: Any) -> list[list[int]]:
        return [HEADERS[text] for text in texts]


def cells_of(tokens: list[int], n_cells: int) -> list[tuple[int, ...]]:
    """The lists between the headers, each with the end that a list of its own would have."""
    assert tokens[-1] == END
    starts, rest = list(HEADERS.values())[:n_cells], tokens[:-1]
    out = []
    for i, header in enumerate(starts):
        assert rest[: len(header)] == header
        rest = rest[len(header) :]
        at = rest.index(42) if i + 1 < n_cells else len(rest)
        out.append((*rest[:at], END))
        rest = rest[at:]
    assert not rest
    return out


def test_every_cell_is_a_list(model: TinyModel, prompts: list[NDArray], teacher: Teacher) -> None:
    """With 1, 2 or 3 genes a prompt; genes come again in the next cell; probabilities are of what was allowed."""
    grammar = CellsGrammar.build(Toy(), table_of(GENES), 3)
    numbers = [1, 2, 3, 2, 1]
    grammar = grammar.with_genes(numbers)
    sampler = Sampler(model[0], stop_ids=(END,), vocab_size=50, batch_size=8, mesh=one_device())
    options: Any = dict(max_new_tokens=40, sampling=Sampling(1.5), samples_per_prompt=4, grammar=grammar)
    found = sampler(model[1], prompts, **options)
    assert found.stopped.all()
    repeated = 0
    for row, (tokens, length) in enumerate(zip(found.tokens.tolist(), found.lengths)):
        allowed = all_lists(GENES, range(1, numbers[row // 4] + 1), leading="bare")
        lists = cells_of(tokens[:length], 3)
        assert all(x in allowed for x in lists), tokens
        repeated += len(set(lists)) < 3
    assert repeated > 0, "a cell should be able to have the genes of another"
    headers = np.isin(found.tokens, [40, 41, 43, 44])
    np.testing.assert_array_equal(found.logprobs[headers], 0.0)

    # One cell of one gene: the end of a list is weighed by the next header's first token.
    one = sampler(model[1], prompts[:1], **options | dict(grammar=grammar.with_genes(1)))
    prompt, answer = prompts[0], one.tokens[0, : one.lengths[0]].tolist()
    logits = teacher(np.array([*prompt, *answer]))[len(prompt) - 1 : -1].astype(np.float64)
    lists = all_lists(GENES, [1], leading="bare")
    at, written = 2, ()
    while answer[at] != 42:
        options_here = {x[len(written)] for x in lists if x[: len(written)] == written}
        tokens_here = [42 if t == END else t for t in options_here]
        masked = np.where(np.isin(np.arange(logits.shape[1]), tokens_here), logits[at], -np.inf)
        wanted = distribution(masked, Sampling(1.5))[answer[at]]
        np.testing.assert_allclose(one.logprobs[0, at], wanted, rtol=0, atol=1e-4)
        written, at = (*written, answer[at]), at + 1


def test_what_the_training_format_writes_is_allowed(bundle: Any) -> None:
    """Tokens of real cells as the data stream makes them, one after the other; and they parse as those cells."""
    corpus, tokenizer = Corpus(bundle.corpus), load_tokenizer(bundle.tokenizer)
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
    cells = corpus.cells("test").take(np.arange(3))
    genes = np.concatenate([cells.genes[start : start + 9] for start in cells.indptr[:-1]])
    template = next(t for t in load_templates("multi_cell_sentence_modelling"))
    given = {name: "x" for name in template.fields if name not in ("multi_cell_sentences", "num_genes", "num_cells")}
    asked = request(template, given, num_genes=9, num_cells=3)
    made = formatter.examples([asked], genes, np.array([0, 9, 18, 27]), np.array([3]))
    answer = made.tokens[made.is_response].tolist()
    names = [[corpus.genes.names[g] for g in part] for part in genes.reshape(3, 9)]
    assert [s.split() for s in parse_sentences(tokenizer.decode(answer[:-1]))] == names

    grammar = CellsGrammar.build(tokenizer, formatter.table, 3, exactly=9)
    width = grammar.genes.width + grammar.genes.fan_out + 1

    @jax.jit
    def every_way(walk: Any) -> Any:
        """All candidates of one row side by side: which are open, their tokens, and the walks after them."""
        rows = jax.tree.map(lambda x: jnp.repeat(x, width, axis=0), walk)
        candidates = grammar.candidates(walk, jnp.zeros((1, len(grammar.symbols))))[0]
        return candidates > NEVER, *grammar.take(rows, jnp.arange(width), jnp.ones(width, bool))

    walk = grammar.start(1)
    for token in answer:
        open_, tokens, after = every_way(walk)
        (found,) = np.flatnonzero(np.asarray(open_) & (np.asarray(tokens) == token))
        walk = jax.tree.map(lambda x, at=found: x[at : at + 1], after)
    assert len(answer) > 27


def test_bad_grammars() -> None:
    with pytest.raises(ValueError, match="at least one cell"):
        CellsGrammar.build(Toy(), table_of(GENES), 0)

    class Clash(Toy):
        def encode_batch(self, texts: Any) -> list[list[int]]:
            return [[PIECES.index("▁A")] for _ in texts]

    with pytest.raises(ValueError, match="begins a cell and is part of a name"):
        CellsGrammar.build(Clash(), table_of(GENES), 2)
