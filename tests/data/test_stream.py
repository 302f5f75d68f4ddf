import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from c2s_jax.data import Augmentation, Corpus, Formatter, MixtureTask, PackedRows, batches
from c2s_jax.tasks import TASKS as ALL_TASKS
from c2s_jax.tasks import load_templates
from c2s_jax.text import GeneTokenTable, load_tokenizer
from tests.data.conftest import CellsInMemory
from tests.data.test_interactions import sentences as known_interactions

NAMES = ("tokens", "targets", "loss_weights", "positions", "segment_ids", "task_ids")
TASKS = (
    MixtureTask("cell_type_annotation", weight=3.0, loss="response", response_weight=2.5),
    MixtureTask("cell_sentence_modelling", weight=1.0),
    MixtureTask("cell_type_conditioned_generation", weight=1.0, loss="all", response_weight=4.0),
)


@pytest.fixture
def make_rows(make_cells, corpus_of, formatter):
    def make(tasks=TASKS, cells=None, **settings) -> PackedRows:
        settings = {"seq_len": 256, "rows_per_block": 8, "seed": 3} | settings
        return PackedRows(corpus_of(cells or make_cells()), "train", tasks, formatter, **settings)

    return make


def all_examples(rows, cells, gene_names, most=None):
    """Every example there can be, written out and tokenised here: tokens -> (task number, prompt tokens)."""
    t, out = rows.formatter.tokenizer, {}
    for number, task in enumerate(rows.mixture.tasks):
        for template in load_templates(task.task):
            for cell, stored in enumerate(cells.lists):
                fields = {f: str(cells.fields(f)[cell]) for f in ("organism", "cell_type")}
                if "cell_type" in template.fields and not fields["cell_type"]:
                    continue
                genes = stored[:most]
                fields |= {"cell_sentence": " ".join(gene_names[g] for g in genes), "num_genes": str(len(genes))}
                prompt = template.model_input.format(**fields)
                tokens = t.encode(f"{prompt} {template.response.format(**fields)}")
                out[(t.bos_id, *tokens, t.eos_id)] = (number, 1 + len(t.encode(prompt)), cell)
    return out


def check_row(row, tasks, known):
    """Compare a row with the naive reference; returns the examples found."""
    found = []
    n_segments = row["segment_ids"].max()
    used = int((row["segment_ids"] > 0).sum())
    for name in NAMES:
        assert not row[name][used:].any(), name  # padding at the end, all zero
    expected_segment = np.zeros_like(row["segment_ids"])
    start = 0
    for segment in range(1, n_segments + 1):
        where = np.flatnonzero(row["segment_ids"] == segment)
        tokens = row["tokens"][where].tolist()
        n = len(tokens)
        assert where.tolist() == list(range(start, start + n))
        number, n_prompt, cell = known[tuple(tokens)]
        task = tasks[number]
        weights = [
            0.0 if i == n - 1 else task.response_weight if i + 1 >= n_prompt else float(task.loss == "all")
            for i in range(n)
        ]
        assert row["targets"][where].tolist() == [*tokens[1:], 0]
        np.testing.assert_array_equal(row["loss_weights"][where], np.array(weights, np.float32))
        assert row["positions"][where].tolist() == list(range(n))
        assert set(row["task_ids"][where].tolist()) == {number}
        expected_segment[where] = segment
        start += n
        found.append((number, cell))
    np.testing.assert_array_equal(row["segment_ids"], expected_segment)
    return found


def test_rows_against_a_naive_reference(make_rows, make_cells, gene_names):
    rows = make_rows()
    known = all_examples(rows, make_cells(), gene_names)
    for block in range(2):
        found = [x for r in range(8) for x in check_row(rows[8 * block + r], TASKS, known)]
        assert {number for number, _ in found} == {0, 1, 2}
        plan = rows.plan(block)
        part = plan.examples.part(*plan.bounds)
        cells = [rows.mixture.streams[t].draw(np.array([n])).lists[0] for t, n in zip(part.task, part.number)]
        drawn = list(zip(part.task.tolist(), map(int, cells)))
        for example in set(found):
            assert found.count(example) <= drawn.count(example)
        assert len(found) > 0.9 * len(drawn)
    assert {name: rows[0][name].dtype for name in NAMES} == {
        name: np.float32 if name == "loss_weights" else np.int32 for name in NAMES
    }


def test_rows_of_shortened_sentences(make_rows, make_cells, gene_names):
    tasks = [MixtureTask("cell_type_annotation", min_genes=2, max_genes=2)]
    rows = make_rows(tasks, seq_len=256)
    known = all_examples(rows, make_cells(), gene_names, most=2)
    assert sum(len(check_row(rows[r], tasks, known)) for r in range(8)) > 20


def test_tasks_and_lengths_are_spread_over_rows(make_rows):
    rows = make_rows(rows_per_block=32)
    counts = np.array([rows[r]["segment_ids"].max() for r in range(32)])
    assert abs(counts[:16].mean() - counts[16:].mean()) < 2 * counts.std()


def test_a_row_is_a_function_of_its_number(make_rows):
    """Across instances, block borders and orders of reading; more blocks than are kept."""
    numbers = [0, 7, 8, 9, 63, 64, 8 * 1000 + 5]
    alone = {n: make_rows(augmentation=Augmentation(shuffle_ties=True, gene_dropout=0.3))[n] for n in numbers}
    shared = make_rows(augmentation=Augmentation(shuffle_ties=True, gene_dropout=0.3))
    for n in [*reversed(numbers), *numbers]:
        for name in NAMES:
            np.testing.assert_array_equal(shared[n][name], alone[n][name], err_msg=f"row {n}, {name}")
    assert not np.array_equal(alone[0]["tokens"], alone[8]["tokens"])


def test_seed_decides(make_rows):
    assert not np.array_equal(make_rows(seed=1)[0]["tokens"], make_rows(seed=2)[0]["tokens"])


def test_many_threads_read_the_same(make_rows):
    rows = make_rows(rows_per_block=2)
    numbers = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 4))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda n: rows[n]["tokens"], numbers))
    alone = make_rows(rows_per_block=2)
    expected = {n: alone[n]["tokens"] for n in range(40)}
    for n, tokens in zip(numbers, read):
        np.testing.assert_array_equal(tokens, expected[n])


def test_long_rows_are_nearly_full(make_rows, make_cells):
    rows = make_rows(cells=make_cells(200, (20, 150)), seq_len=8192, rows_per_block=64)
    assert filled(rows.block(1)) >= 0.98


def test_short_rows_of_short_examples_are_nearly_full(make_rows, make_cells):
    rows = make_rows(cells=make_cells(200, (1, 8)), seq_len=256, rows_per_block=64)
    assert filled(rows.block(1)) >= 0.95


@pytest.mark.parametrize("rows_per_block", [1, 2])
def test_the_smallest_blocks_hold_examples(make_rows, make_cells, rows_per_block):
    rows = make_rows(cells=make_cells(40, (30, 30)), seq_len=200, rows_per_block=rows_per_block)
    assert all(rows.block(n)["segment_ids"].any() for n in range(10))


def filled(rows) -> float:
    return np.count_nonzero(rows["segment_ids"]) / rows["segment_ids"].size


@pytest.fixture
def all_rows(rich, formatter):
    """Function that makes rows of all tasks."""

    def make(**settings) -> PackedRows:
        tasks = [MixtureTask(task, min_genes=5, max_genes=25) for task in ALL_TASKS]
        settings = {"seq_len": 512, "rows_per_block": 64, "seed": 3} | settings
        return PackedRows(rich, "train", settings.pop("tasks", tasks), formatter, **settings)

    return make


class TestBlocksOfSeveralPacks:
    def test_packs_are_nearly_full(self, all_rows):
        rows = all_rows(seq_len=8192, rows_per_block=160)
        shares = [filled(rows.pack(pack)) for pack in range(6)]  # two blocks of 64 + 64 + 32 rows
        assert [len(rows.pack(pack)["tokens"]) for pack in range(6)] == [64, 64, 32] * 2
        assert min(shares) >= 0.98

    def test_rows_are_those_of_their_packs(self, all_rows):
        rows = all_rows(rows_per_block=160)
        for n in (0, 63, 64, 128, 159, 160, 319, 320):
            block, row = divmod(n, 160)
            for name in NAMES:
                np.testing.assert_array_equal(rows[n][name], rows.pack(3 * block + row // 64)[name][row % 64])
                np.testing.assert_array_equal(rows[n][name], rows.block(block)[name][row])

    def test_hardly_an_example_is_lost(self, all_rows):
        """Over a block, those that are placed are those that it draws, but for some percent."""
        rows = all_rows(rows_per_block=192)
        placed = rows.block(0)["segment_ids"].max(1).sum()
        assert placed > 0.95 * rows.examples_per_block
        own = rows.mixture.block(0, rows.examples_per_block)
        plan = rows.plan(0)
        n = min(int(plan.bounds[-1]), len(own))
        assert n > 0.9 * len(own)
        np.testing.assert_array_equal(plan.examples.task[:n], own.task[:n])

    def test_expected_tokens_are_right(self, all_rows):
        """Lengths from columns, against those of the written examples."""
        told = {"same_niche": dict(interactions=True, max_genes=None)}
        tasks = [MixtureTask(t, **{"max_genes": 12, **told.get(t, {})}) for t in ALL_TASKS]
        rows = all_rows(tasks=tasks, augmentation=Augmentation(shuffle_ties=True, gene_dropout=0.5))
        block = rows.mixture.block(7, 1500)
        expected = rows.survey.tokens(block)
        for number, writer in enumerate(rows.writers):
            of_task = block.task == number
            lengths = writer.write(block.number[of_task]).examples.lengths
            known = not tasks[number].interactions  # what is told of them depends on genes not yet read
            assert (rows.survey.tasks[number].other_tokens > 10) == (not known)
            assert expected[of_task].mean() == pytest.approx(lengths.mean(), rel=0.04 if known else 0.2)
            assert np.corrcoef(expected[of_task], lengths)[0, 1] > (0.9 if known else 0.2), tasks[number].task


SHORT = 450  # tokens; several cells have more


@pytest.mark.parametrize("task", ALL_TASKS)
def test_every_task_against_its_text(all_rows, rich, gene_names, task):
    """Tokens of examples, against the tokenizer on templates filled in by hand."""
    interactions = task in ("niche_annotation", "neighbour_generation", "same_niche", "same_neighbourhood")
    settings = MixtureTask(task, min_genes=9, max_genes=9, interactions=interactions)
    (writer,) = all_rows(tasks=[settings], seq_len=SHORT).writers
    which = np.arange(100)
    examples, draw = writer.write(which).examples, writer.stream.draw(which)
    tokenizer, draft = writer.formatter.tokenizer, draw.draft
    block = writer.stream.context.source.take(draw.lists)
    sentences = [[gene_names[g] for g in genes] for genes in np.split(block.genes, block.indptr[1:-1])]
    n_cut = 0
    for i, tokens in enumerate(np.split(examples.tokens, examples.indptr[1:-1])):
        template = writer.stream.templates[draft.template[i]]
        values = {name: texts_of(texts, i) for name, texts in draft.texts.items() if name in template.fields}
        whole = sentences[draft.indptr[i] : draft.indptr[i + 1]]

        def written(most: int, template=template, values=values, whole=whole, cells=int(draft.cells[i])) -> list[int]:
            text = written_out(template, values, [genes[:most] for genes in whole], cells, rich, interactions)
            return [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]

        longest = min(9, max(map(len, whole)))
        possible = [written(most) for most in range(longest, 0, -1)]  # shortened evenly, as far as it takes
        assert tokens.tolist() in possible
        cut = possible.index(tokens.tolist())
        assert len(tokens) <= SHORT or cut == longest - 1
        assert cut == 0 or len(possible[cut - 1]) > SHORT
        n_cut += cut > 0
    assert n_cut > 0 or settings.max_cells <= 10


def texts_of(texts, i: int) -> str | list[str]:
    """A field's text or texts in example i."""
    if texts.indptr is None:
        return texts.value(int(texts.codes[i]))
    return [texts.value(code) for code in texts.codes[texts.indptr[i] : texts.indptr[i + 1]].tolist()]


def written_out(template, values, lists, cells, rich, interactions) -> str:
    """An example's text, by str.format."""
    joined = [" ".join(genes) for genes in lists]
    several = "\n".join(f"Cell {i}:\n{genes}." for i, genes in enumerate(joined[:cells], 1))
    text = f"{template.model_input} {template.response}"
    values = {name: ", ".join(v) if isinstance(v, list) else v for name, v in values.items()}
    values |= {"cell_sentence": joined[0], "other_cell_sentence": joined[1 % len(joined)]}
    values |= {"bulk_sentence": joined[-1], "gene_set": joined[-1], "multi_cell_sentences": several}
    values |= {"num_genes": str(max(map(len, lists[:cells]))), "num_cells": str(cells)}
    if interactions:
        shown = lists if "{multi_cell_sentences}" in template.model_input else lists[:1]
        numbers = [[rich.names.index(gene) for gene in genes] for genes in shown]
        values["interactions"] = " ".join(known_interactions(rich, numbers, 20))
    for field in ("abstract", "caption", "answer"):
        if values.get(field, "").endswith("."):
            text = text.replace(f"{{{field}}}.", f"{{{field}}}")
    return text.format(**values)


NUMBERED = {
    "cell_type_annotation": ("Top {num_genes} genes of one cell: {cell_sentence}.\nType:", "{cell_type}."),
    "cell_type_conditioned_generation": ("Top {num_genes} genes of a {cell_type} cell:", "{cell_sentence}."),
    "cell_sentence_modelling": ("Top {num_genes} genes:\n", "{cell_sentence}"),
}


@pytest.fixture
def numbered(tmp_path):
    """Folder of templates that tell the number of genes."""
    for task, (prompt, response) in NUMBERED.items():
        (tmp_path / f"{task}.json").write_text(json.dumps({"model_input": [prompt], "response": [response]}))
    return str(tmp_path)


@pytest.mark.parametrize("seq_len", [61, 120, 215])  # at the last, about 100 genes fit
def test_overlong_cells_are_cut_to_the_genes_that_fit(make_rows, make_cells, gene_names, numbered, seq_len):
    """A beginning of the ranking, its number in the prompt, the whole response; nothing is left out."""
    tasks = [MixtureTask(task, prompts=numbered) for task in NUMBERED]
    cells = make_cells(60, (3, 140), unlabelled=0)
    rows = make_rows(tasks, cells, seq_len=seq_len, rows_per_block=64)
    tokenizer, n_cut = rows.formatter.tokenizer, 0
    for task, writer in zip(NUMBERED, rows.writers):
        written = writer.write(np.arange(100))
        drawn = writer.stream.draw(np.arange(100)).lists.tolist()

        def text(cell: int, number: int, task=task) -> list[int]:
            fields = {"cell_type": str(cells.fields("cell_type")[cell]), "num_genes": str(number)}
            fields["cell_sentence"] = " ".join(gene_names[g] for g in cells.lists[cell][:number])
            return [tokenizer.bos_id, *tokenizer.encode(" ".join(NUMBERED[task]).format(**fields)), tokenizer.eos_id]

        examples = np.split(written.examples.tokens, written.examples.indptr[1:-1])
        for cell, tokens, shortened in zip(drawn, examples, written.shortened):
            number = int(re.search(r"Top (\d+) genes", tokenizer.decode(tokens)).group(1))
            assert tokens.tolist() == text(cell, number)
            assert len(tokens) <= seq_len
            assert shortened == (number < len(cells.lists[cell]))
            if shortened:
                n_cut += 1
                assert len(text(cell, number + 1)) > seq_len - 4  # hardly any room is lost
        survey = rows.survey.tasks[list(NUMBERED).index(task)]
        assert survey.measured >= 64
        assert survey.shortened == writer.write(np.arange(survey.measured)).shortened.mean()
    assert 60 < n_cut < 300


def test_examples_whose_text_alone_is_too_long_are_left_out(make_rows, numbered):
    cells = CellsInMemory([np.arange(9)] * 4, [np.ones(9)] * 4, {"cell_type": ["B", "B", "B", "B cell " * 90]})
    rows = make_rows([MixtureTask("cell_type_annotation", prompts=numbered)], cells, seq_len=100)
    kept = rows.block(0)
    assert rows.formatter.tokenizer.decode(kept["tokens"][kept["segment_ids"] > 0]).count("Type: B.") > 8
    assert "B cell B cell" not in rows.formatter.tokenizer.decode(kept["tokens"][kept["segment_ids"] > 0])


def test_what_is_left_out_is_told(make_rows):
    labels = ["B", "B", "B", "B cell " * 90]
    cells = CellsInMemory([np.arange(9)] * 4, [np.ones(9)] * 4, {"cell_type": labels, "organism": ["human"] * 4})
    rows = make_rows([MixtureTask("cell_type_annotation")], cells, seq_len=100)
    (task,) = rows.survey.tasks
    assert task.left_out == pytest.approx(0.25, abs=0.02)
    assert task.examples == 4
    head, line = rows.describe()
    assert head.startswith("8 rows of 100 tokens a block, ")
    assert re.search(r"cell_type_annotation: 100.0% of examples, 4 an epoch, .* left out 2\d\.\d%", line)


def test_all_too_long(make_rows, make_cells):
    cells = make_cells(10, (100, 120))
    message = r"longer than data.seq_len={}, even with a single gene .*shortest\D+\d+.*raise seq_len"
    for seq_len, who in ((30, r"\d\d% of the examples are"), (8, "every example is")):
        with pytest.raises(ValueError, match=f"^{who} {message.format(seq_len)}"):
            make_rows(cells=cells, seq_len=seq_len)


class TestBatches:
    def test_rows_in_order(self, make_rows):
        rows = make_rows()
        stream = batches(make_rows(), start_row=0, batch_size=6)
        for step in range(4):
            batch = next(stream)
            for i in range(6):
                for name in NAMES:
                    np.testing.assert_array_equal(batch[name][i], rows[6 * step + i][name])

    def test_resumes_anywhere(self, make_rows):
        stream = batches(make_rows(), start_row=0, batch_size=4)
        whole = [next(stream) for _ in range(5)]
        resumed = batches(make_rows(), start_row=12, batch_size=4, threads=1)
        for expected in whole[3:]:
            got = next(resumed)
            for name in NAMES:
                np.testing.assert_array_equal(got[name], expected[name])

    def test_processes_share_a_batch(self, make_rows, monkeypatch):
        whole = next(batches(make_rows(), start_row=8, batch_size=4))
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        parts = []
        for index in range(2):
            monkeypatch.setattr(jax, "process_index", lambda index=index: index)
            parts.append(next(batches(make_rows(), start_row=8, batch_size=4)))
        np.testing.assert_array_equal(np.concatenate([p["tokens"] for p in parts]), whole["tokens"])
        with pytest.raises(ValueError, match="batch_size=5 is not a multiple of the 2 processes"):
            batches(make_rows(), start_row=0, batch_size=5)

    @pytest.mark.parametrize("hosts", [1, 2, 8, 64])
    def test_any_number_of_hosts_and_threads(self, all_rows, hosts):
        """The same global batches, across packs and blocks; each host has rows of its own."""
        alone = all_rows(rows_per_block=80)
        streams = [
            batches(
                all_rows(rows_per_block=80) if hosts == 2 else alone,
                start_row=40,
                batch_size=64,
                threads=1 + hosts % 3,
                process_index=host,
                process_count=hosts,
            )
            for host in range(hosts)
        ]
        for step in range(2):
            parts = [next(stream) for stream in streams]
            for name in NAMES:
                batch = np.concatenate([part[name] for part in parts])
                expected = np.stack([alone[40 + 64 * step + i][name] for i in range(64)])
                np.testing.assert_array_equal(batch, expected, err_msg=f"{hosts} hosts, {name}")

    def test_another_process_reads_the_same(self, bundle):
        """Whatever the hash seed of its interpreter."""
        script = "import sys; from tests.data.test_stream import digest_of_rows; print(digest_of_rows(*sys.argv[1:]))"
        found = subprocess.run(
            [sys.executable, "-c", script, *bundle],
            env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == digest_of_rows(*bundle)


def digest_of_rows(corpus: str, tokenizer: str) -> str:
    """A hash of some rows of whatever tasks the bundled cells have data for."""
    cells, text = Corpus(corpus), load_tokenizer(tokenizer)
    formatter = Formatter(text, GeneTokenTable.build(text, cells.genes.names))
    tasks = [MixtureTask(task) for task in ALL_TASKS]
    settings = dict(seq_len=512, rows_per_block=80, missing="skip", augmentation=Augmentation(shuffle_ties=True))
    rows = PackedRows(cells, "train", tasks, formatter, **settings)
    return hashlib.sha256(b"".join(rows[n]["tokens"].tobytes() for n in (0, 70, 200))).hexdigest()
