import json
import re
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from c2s_jax.data import Augmentation, MixtureTask, PackedRows, batches
from c2s_jax.data.packing import plan_rows
from c2s_jax.tasks import load_templates
from tests.data.conftest import CellsInMemory

NAMES = ("tokens", "targets", "loss_weights", "positions", "segment_ids", "task_ids")
TASKS = (
    MixtureTask("cell_type_annotation", weight=3.0, loss="response", response_weight=2.5),
    MixtureTask("cell_sentence_modelling", weight=1.0),
    MixtureTask("cell_type_conditioned_generation", weight=1.0, loss="all", response_weight=4.0),
)


@pytest.fixture
def make_rows(make_cells, formatter):
    def make(tasks=TASKS, cells=None, **settings) -> PackedRows:
        settings = {"seq_len": 256, "rows_per_block": 8, "seed": 3} | settings
        return PackedRows(cells or make_cells(), tasks, formatter, **settings)

    return make


def all_examples(rows, gene_names, most=None):
    """Every example there can be, written out and tokenised here: tokens -> (task number, prompt tokens)."""
    t, cells, out = rows.formatter.tokenizer, rows.cells, {}
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


def test_rows_against_a_naive_reference(make_rows, gene_names):
    rows = make_rows()
    known = all_examples(rows, gene_names)
    for block in range(2):
        found = [x for r in range(8) for x in check_row(rows[8 * block + r], TASKS, known)]
        assert {number for number, _ in found} == {0, 1, 2}
        draw = rows.mixture.draw(block, rows._examples_per_block)
        drawn = list(zip(draw.task.tolist(), draw.cell.tolist()))
        for example in set(found):
            assert found.count(example) <= drawn.count(example)
    assert {name: rows[0][name].dtype for name in NAMES} == {
        name: np.float32 if name == "loss_weights" else np.int32 for name in NAMES
    }


def test_rows_of_shortened_sentences(make_rows, gene_names):
    tasks = [MixtureTask("cell_type_annotation", min_genes=2, max_genes=2)]
    rows = make_rows(tasks, seq_len=256)
    known = all_examples(rows, gene_names, most=2)
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
    assert np.count_nonzero(rows.block(1)["segment_ids"]) / (64 * 8192) >= 0.98


def test_short_rows_of_short_examples_are_nearly_full(make_rows, make_cells):
    rows = make_rows(cells=make_cells(200, (1, 8)), seq_len=256, rows_per_block=64)
    assert np.count_nonzero(rows.block(1)["segment_ids"]) / (64 * 256) >= 0.95


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
    rows = make_rows(tasks, make_cells(60, (3, 140), unlabelled=0), seq_len=seq_len, rows_per_block=64)
    tokenizer, cells = rows.formatter.tokenizer, rows.cells
    draw, examples = rows._examples(0, 300)

    def written(i: int, number: int) -> list[int]:
        fields = {"cell_type": str(cells.fields("cell_type")[draw.cell[i]]), "num_genes": str(number)}
        fields["cell_sentence"] = " ".join(gene_names[g] for g in cells.lists[draw.cell[i]][:number])
        text = " ".join(NUMBERED[tasks[draw.task[i]].task]).format(**fields)
        return [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]

    n_cut = 0
    for i, tokens in enumerate(np.split(examples.tokens, examples.indptr[1:-1])):
        number = int(re.search(r"Top (\d+) genes", tokenizer.decode(tokens)).group(1))
        assert tokens.tolist() == written(i, number)
        assert len(tokens) <= seq_len
        if number < len(cells.lists[draw.cell[i]]):
            n_cut += 1
            assert len(written(i, number + 1)) > seq_len - 4  # hardly any room is lost
    assert 60 < n_cut < 300
    assert (plan_rows(examples.lengths, 300, seq_len) >= 0).all()


def test_examples_whose_text_alone_is_too_long_are_left_out(make_rows, numbered):
    cells = CellsInMemory([np.arange(9)] * 4, [np.ones(9)] * 4, {"cell_type": ["B", "B", "B", "B cell " * 90]})
    rows = make_rows([MixtureTask("cell_type_annotation", prompts=numbered)], cells, seq_len=100)
    kept = rows.block(0)
    assert rows.formatter.tokenizer.decode(kept["tokens"][kept["segment_ids"] > 0]).count("Type: B.") > 8
    assert "B cell B cell" not in rows.formatter.tokenizer.decode(kept["tokens"][kept["segment_ids"] > 0])


def test_all_too_long(make_rows, make_cells):
    cells = make_cells(10, (100, 120))
    message = r"longer than data.seq_len={}, even with a single gene .*shortest\D+\d+.*raise seq_len"
    for seq_len, who in ((32, r"\d\d% of the examples are"), (8, "every example is")):
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
