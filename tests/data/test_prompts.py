"""Prompts to answer, against the examples that training writes."""

import numpy as np
import pytest

from c2s_jax.data import MixtureTask, PromptStream, prompts

TASKS = (
    MixtureTask("cell_type_annotation", weight=2.0),
    MixtureTask("cell_type_conditioned_generation", weight=1.0, max_genes=6),
)


@pytest.fixture
def stream(make_cells, corpus_of, formatter, monkeypatch):
    monkeypatch.setattr(prompts, "BLOCK", 10)  # so that several are met
    return PromptStream(corpus_of(make_cells()), "train", TASKS, formatter, seq_len=256, seed=3)


def test_prompt_and_reference_are_the_example(stream, formatter) -> None:
    """Prompt, reference and the end of the sequence are the tokens that training would see."""
    found = stream.take(0, 25)
    examples = stream._examples(0, 25)
    for i in range(25):
        writer = stream._writers[examples.task[i]]
        written = writer.write(examples.number[i : i + 1]).examples
        whole = [*found.tokens[i], *found.references[i], formatter.tokenizer.eos_id]
        assert whole == written.tokens.tolist()
        assert len(found.tokens[i]) == np.count_nonzero(~written.is_response)
        assert found.tasks[i] == TASKS[examples.task[i]].task


def test_the_cell_is_the_one_that_is_asked_about(stream, formatter) -> None:
    labels = stream._writers[0].stream.context.known.cells.fields("cell_type")
    found = stream.take(0, 30)
    for task, cell, prompt, reference in zip(found.tasks, found.cells, found.tokens, found.references):
        told = reference if task == "cell_type_annotation" else prompt
        assert labels[cell] in formatter.tokenizer.decode(told.tolist())


def test_a_prompt_depends_on_its_number_alone(stream) -> None:
    whole = stream.take(0, 24)
    for start, count in ((0, 7), (7, 4), (9, 1), (11, 13), (17, 7)):
        part = stream.take(start, count)
        assert [x.tolist() for x in part.tokens] == [x.tolist() for x in whole.tokens[start : start + count]]
        assert [x.tolist() for x in part.references] == [x.tolist() for x in whole.references[start : start + count]]
        np.testing.assert_array_equal(part.cells, whole.cells[start : start + count])


def test_an_epoch_asks_about_every_cell_once(make_cells, corpus_of, formatter, monkeypatch) -> None:
    monkeypatch.setattr(prompts, "BLOCK", 8)
    stream = PromptStream(corpus_of(make_cells()), "train", TASKS[:1], formatter, seq_len=256)
    n = len(stream._writers[0].stream)
    assert n % 8 == 0
    assert len(np.unique(stream.take(n, n).cells)) == n


def test_too_long_a_prompt_is_an_error(make_cells, corpus_of, formatter) -> None:
    stream = PromptStream(corpus_of(make_cells()), "train", TASKS[:1], formatter, seq_len=12)
    with pytest.raises(ValueError, match=r"prompt \d+ \(cell_type_annotation\) and its response take .* raise seq_len"):
        stream.take(0, 4)
