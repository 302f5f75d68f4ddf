import itertools

import numpy as np
import pytest

from c2s_jax.text import GeneTokenTable, SentencePieceTokenizer

BEFORE = {"space": ["", "Genes:", "x.", "\n", "(B)"], "bare": ["", "Cell 1:\n", "\n"]}
AFTER = {"plain": ["", "\n", " next"], "period": ["", "\n", " Next", "\nCell 2:\n"]}
FORMS = list(itertools.product(BEFORE, AFTER))


@pytest.fixture(scope="module", params=["bpe", "unigram", "neox"])
def tokenizer(request, of_kind):
    return of_kind(request.param)


@pytest.fixture(scope="module")
def table(tokenizer, gene_names) -> GeneTokenTable:
    return GeneTokenTable.build(tokenizer, gene_names)


def sentence(names, genes, leading, trailing) -> str:
    text = " ".join(names[g] for g in genes)
    return (" " if leading == "space" else "") + text + ("." if trailing == "period" else "")


def random_cells(n_genes: int, n_cells: int, longest: int = 60) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.permutation(n_genes)[: rng.integers(1, longest)] for _ in range(n_cells)]


def assert_exact(tokenizer, table, names, leading, trailing, n_cells):
    contexts = itertools.cycle(itertools.product(BEFORE[leading], AFTER[trailing]))
    for genes, (before, after) in zip(random_cells(len(names), n_cells), contexts, strict=False):
        expected = tokenizer.encode(before + sentence(names, genes, leading, trailing) + after)
        found = table.encode(genes, leading, trailing).tolist()
        assert tokenizer.encode(before) + found + tokenizer.encode(after) == expected


@pytest.mark.parametrize(("leading", "trailing"), FORMS)
def test_look_up_equals_the_tokenizer_on_whole_sentences(tokenizer, table, gene_names, leading, trailing):
    assert_exact(tokenizer, table, gene_names, leading, trailing, 250)


@pytest.mark.parametrize(("leading", "trailing"), FORMS)
def test_look_up_equals_the_tokenizer_on_single_genes(tokenizer, table, gene_names, leading, trailing):
    for gene in range(len(gene_names)):
        expected = tokenizer.encode(sentence(gene_names, [gene], leading, trailing))
        assert table.encode([gene], leading, trailing).tolist() == expected


def test_the_four_forms_differ_here(tokenizer, table, gene_names):
    """Otherwise the tests above could not fail."""
    period = tokenizer.encode(".")
    merged = sum(
        table.encode([g], "space", "period").tolist() != table.encode([g]).tolist() + period
        for g in range(len(gene_names))
    )
    bare = sum(table.encode([g], "bare").tolist() != table.encode([g]).tolist() for g in range(len(gene_names)))
    assert merged > 20
    assert bare > 20
    assert table.lengths.max() > 2


@pytest.mark.parametrize(("leading", "trailing"), FORMS)
def test_many_sentences_at_once(table, gene_names, leading, trailing):
    cells = random_cells(len(gene_names), 40)
    cells[3] = cells[3][:0]
    cells[-1] = cells[-1][:0]
    indptr = np.concatenate([[0], np.cumsum([len(c) for c in cells])])
    flat = np.concatenate(cells)
    tokens, token_indptr = table.encode_many(flat, indptr, leading, trailing)
    singles = [table.encode(c, leading, trailing) for c in cells]
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, np.concatenate(singles))
    np.testing.assert_array_equal(np.diff(token_indptr), [len(s) for s in singles])
    np.testing.assert_array_equal(table.token_lengths(flat, indptr, leading, trailing), [len(s) for s in singles])
    assert int(table.token_lengths(cells[0], None, leading, trailing)) == len(singles[0])


def test_lengths_are_those_inside_a_sentence(tokenizer, table, gene_names):
    expected = [len(tokenizer.encode(f" {name}")) for name in gene_names]
    assert table.lengths.dtype == np.int32
    np.testing.assert_array_equal(table.lengths, expected)


def test_no_genes_no_tokens(table):
    assert table.encode([]).size == 0
    assert int(table.token_lengths([])) == 0
    tokens, indptr = table.encode_many([], [0, 0, 0])
    assert tokens.size == 0
    np.testing.assert_array_equal(indptr, [0, 0, 0])


@pytest.mark.parametrize("bad", [-1, 400])
def test_gene_outside_the_vocabulary(table, bad):
    with pytest.raises(IndexError, match=f"gene id {bad} at position 2 is outside 0 … 399"):
        table.encode([1, 2, bad])


def test_gene_outside_the_vocabulary_among_many_sentences(table):
    for bad in (-1, 400, 2**40):
        with pytest.raises(IndexError, match=f"gene id {bad} at position 3 is"):
            table.token_lengths([0, 1, 2, bad, 4], [0, 2, 5])


@pytest.mark.parametrize("indptr", [[0, 3, 2], [-1, 2], [0, 4]])
def test_sentences_outside_the_genes(table, indptr):
    with pytest.raises(ValueError, match="indptr must rise from 0 or more to at most 3"):
        table.encode_many([1, 2, 3], indptr)


def test_sentences_of_some_of_the_genes(table):
    tokens, indptr = table.encode_many(np.arange(9, dtype=np.int32), [2, 4, 4, 7], "bare", "period")
    assert tokens.tolist() == [*table.encode([2, 3], "bare", "period"), *table.encode([4, 5, 6], "bare", "period")]
    first = len(table.encode([2, 3], "bare", "period"))
    assert indptr.tolist() == [0, first, first, len(tokens)]


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint16])
def test_kinds_of_gene_ids(table, kind):
    read_only = np.arange(50, dtype=kind)
    read_only.flags.writeable = False
    np.testing.assert_array_equal(table.encode(read_only), table.encode(list(range(50))))


def test_unknown_form(table):
    with pytest.raises(ValueError, match="leading='tab'"):
        table.encode([1], leading="tab")


def test_save_and_load(tmp_path, tokenizer, table, gene_names):
    table.save(tmp_path / "table.npz")
    loaded = GeneTokenTable.load(tmp_path / "table.npz", tokenizer, gene_names)
    genes = np.arange(len(gene_names))
    for leading, trailing in FORMS:
        np.testing.assert_array_equal(loaded.encode(genes, leading, trailing), table.encode(genes, leading, trailing))
    with pytest.raises(ValueError, match="another list of genes"):
        GeneTokenTable.load(tmp_path / "table.npz", tokenizer, gene_names[::-1])


def test_table_of_another_tokenizer_is_refused(tmp_path, train, table, gene_names):
    table.save(tmp_path / "table.npz")
    other = SentencePieceTokenizer(train(vocab_size=600))
    with pytest.raises(ValueError, match="was built with tokenizer"):
        GeneTokenTable.load(tmp_path / "table.npz", other, gene_names)


def test_tokenizer_that_merges_across_spaces_is_refused(train, gene_names):
    sentences = [" ".join(gene_names[i : i + 3]) + "." for i in range(50)] * 20
    tokenizer = SentencePieceTokenizer(train(sentences, split_by_whitespace=False))
    with pytest.raises(ValueError, match="not exact"):
        GeneTokenTable.build(tokenizer, gene_names)


@pytest.mark.parametrize("name", ["", "A B", " A", "A\n"])
def test_name_that_is_no_word(tokenizer, name):
    with pytest.raises(ValueError, match="gene 1 has the name"):
        GeneTokenTable.build(tokenizer, ["CD4", name])
