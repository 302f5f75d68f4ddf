import dataclasses
import re

import numpy as np
import pytest

from c2s_jax.data import request
from c2s_jax.evaluation.context import PROMPT_TOKENS, Context, Sentences, sentences_of, some_of
from c2s_jax.generation import Sampling
from c2s_jax.tasks import Template

TEMPLATE = Template("x", "Genes ({num_genes}): {cell_sentence}. Type:", "{cell_type}.")


class Listening:
    """Stands for the sampler: keeps what it is asked."""

    def __call__(self, params, prompts, *, max_new_tokens, **settings):
        self.prompts, self.max_new_tokens = prompts, max_new_tokens


def asked(context: Context, sentences: Sentences, max_new_tokens: int, **changes) -> Listening:
    changed = dataclasses.replace(context, sampler=Listening(), **changes)
    requests = [request(TEMPLATE, {"cell_type": "B cell"}, int(n)) for n in np.diff(sentences.indptr)]
    changed.ask(requests, sentences, what="listen", max_new_tokens=max_new_tokens, sampling=Sampling(0.0))
    return changed.sampler


def test_prompts_are_cut_to_what_the_model_reads(context):
    """The first genes stay, as many as leave room for the answer, and prompts tell how many; short ones are whole."""
    tokenizer, cells = context.formatter.tokenizer, context.corpus.cells("test")
    long = sentences_of(cells, np.arange(6), 200)
    sentences = Sentences.of([*long.lists(), long.lists()[0][:9]])
    requests = [request(TEMPLATE, {"cell_type": "B cell"}, int(n)) for n in np.diff(sentences.indptr)]
    whole = context.formatter.prompts(requests, sentences.genes, sentences.indptr)
    for written, uncut in zip(asked(context, sentences, 20).prompts, np.split(whole.tokens, whole.indptr[1:-1])):
        np.testing.assert_array_equal(written, uncut)
    found = asked(context, sentences, 20, seq_len=120)
    assert found.max_new_tokens == 20
    lengths = [len(row) for row in found.prompts]
    assert max(lengths) <= 100
    assert min(lengths[:-1]) > 90
    np.testing.assert_array_equal(found.prompts[-1], whole.tokens[whole.indptr[-2] :])
    for row, genes in zip(found.prompts, sentences.lists()):
        told, names = re.search(r"Genes \((\d+)\): (.*)\. Type:", tokenizer.decode(row.tolist())).groups()
        assert names.split() == [context.corpus.genes.names[g] for g in genes[: int(told)]]


def test_an_answer_has_what_the_text_leaves(context):
    one = Sentences.of([np.array([3], np.int32)])
    length = len(asked(context, one, 8).prompts[0])
    assert asked(context, one, 8, seq_len=length + 5).max_new_tokens == 5
    with pytest.raises(ValueError, match=f"listen: a prompt takes {length} tokens .* raise data.seq_len={length}"):
        asked(context, one, 8, seq_len=length)


def test_generated_sentences_fit_beside_their_prompt(context):
    assert context.most_genes() == context.longest_sentence() == 200
    for lists in (1, 2):
        short = dataclasses.replace(context, seq_len=160)
        longest, room = short.longest_sentence(lists), (160 - PROMPT_TOKENS) // lists
        assert 1 < longest == short.most_genes(lists) < 200
        assert short.tokens_of(longest) <= room < short.tokens_of(longest + 1)
    assert dataclasses.replace(context, max_genes=12, seq_len=160).longest_sentence() == 12
    assert dataclasses.replace(context, seq_len=PROMPT_TOKENS).most_genes() == 1


def test_some_rows_are_of_every_part():
    rows = np.flatnonzero(np.arange(6_000) % 3)
    found = some_of(rows, 200)
    assert len(found) == 200
    assert (np.diff(found) > 0).all()
    assert np.isin(found, rows).all()
    assert np.histogram(found, bins=5, range=(0, 6_000))[0].min() > 20
    assert np.isin(some_of(rows, 50), found).all()  # a larger number adds cells


def test_no_more_rows_than_asked_for_stay_as_they_are():
    rows = np.array([2, 5, 9])
    for most in (None, 3, 4):
        np.testing.assert_array_equal(some_of(rows, most), rows)
