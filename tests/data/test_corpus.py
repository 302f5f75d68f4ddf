import json
import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from c2s_jax.data import cell_source
from c2s_jax.data import corpus_format as fmt
from c2s_jax.data.corpus import Corpus, CorpusError
from data_pipeline.build import build_corpus


@pytest.fixture
def folder(tmp_path) -> Path:
    """A corpus of 100 cells whose train split has several shards."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.lognormal(0, 1.5, 40), (100, 40)).astype(np.float32)
    counts[:, 0] += 1
    adata = ad.AnnData(sparse.csr_matrix(counts))
    adata.obs["label"] = rng.choice(["B cell", "T cell", "Häm"], 100)
    adata.obs["donor"] = rng.choice(["x", "y", ""], 100)
    return build_corpus(
        adata,
        tmp_path / "corpus",
        obs_columns={"cell_type": "label", "donor": "donor"},
        organism="mouse",
        unit_cells=30,
    )


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*train.array_record*"))


def test_take_gives_what_single_reads_give(folder):
    cells = Corpus(folder).cells("train")
    assert len(shards(folder)) > 2
    which = np.random.default_rng(1).integers(0, len(cells), 200)  # across shards, out of order, with repeats
    block = cells.take(which)
    assert len(block) == 200
    for i, index in enumerate(which):
        part = slice(block.indptr[i], block.indptr[i + 1])
        np.testing.assert_array_equal(block.genes[part], cells[index].genes)
        np.testing.assert_array_equal(block.expression[part], cells[index].expression)
    assert (block.genes.dtype, block.expression.dtype) == (np.int32, np.float16)


def test_columns_agree_with_records(folder):
    corpus = Corpus(folder)
    for split in corpus.splits:
        cells = corpus.cells(split)
        for name in fmt.FIELDS:
            assert cells.fields(name).tolist() == [cell.fields[name] for cell in cells]
        assert cells.n_genes.tolist() == [len(cell.genes) for cell in cells]
        assert cells.dataset_ids.tolist() == [cell.dataset for cell in cells]
        assert cells.cell_ids().tolist() == [cell.cell_id for cell in cells]
        assert len(cells.groups) == len(cells)
    assert set(corpus.cells("train").fields("cell_type")) == {"B cell", "T cell", "Häm"}


def test_groups_are_donors_here(folder):
    cells = Corpus(folder).cells("train")
    pairs = set(zip(cells.fields("donor"), cells.groups.tolist(), strict=True))
    assert len(pairs) == len({group for _, group in pairs}) == 3


def test_indices_like_a_sequence(folder):
    cells = Corpus(folder).cells("test")
    assert cells[-1].cell_id == cells[len(cells) - 1].cell_id
    with pytest.raises(IndexError):
        cells[len(cells)]
    with pytest.raises(IndexError, match=f"record {len(cells)} of split 'test': there are {len(cells)}"):
        cells.take([0, len(cells)])
    with pytest.raises(IndexError, match="record -1"):
        cells.take([-1])
    assert len(cells.take([])) == 0


def test_source_can_be_sent_to_another_process(folder):
    cells = Corpus(folder).cells("train")
    first = cells[0].cell_id
    assert pickle.loads(pickle.dumps(cells))[0].cell_id == first


def test_unknown_split_and_field(folder):
    corpus = Corpus(folder)
    with pytest.raises(KeyError, match="no split 'valid'; it has train, validation, test"):
        corpus.cells("valid")
    with pytest.raises(KeyError, match="no field 'label'; fields are organism"):
        corpus.cells("train").fields("label")


def test_no_corpus(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no corpus at .*data_pipeline\.build"):
        Corpus(tmp_path / "none")


def test_folder_without_manifest_is_unfinished(folder):
    (folder / fmt.MANIFEST_FILE).unlink()
    with pytest.raises(CorpusError, match="not a finished corpus"):
        Corpus(folder)


@pytest.mark.parametrize("lost", [1, 100_000])
def test_truncated_shard(folder, lost):
    shard = shards(folder)[1]
    size = shard.stat().st_size
    left = max(0, size - lost)
    with shard.open("r+b") as file:
        file.truncate(left)
    with pytest.raises(CorpusError, match=f"{shard.name} has {left} bytes, {size} were written.*build it anew"):
        Corpus(folder)


@pytest.mark.parametrize("name", [fmt.GENES_FILE, fmt.INFO_FILE, "groups_test.npy"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(CorpusError, match=f"{name} is missing"):
        Corpus(folder)


def test_shard_cut_before_the_manifest_was_copied(folder):
    """Sizes agree with the manifest, but the content does not."""
    shard = shards(folder)[0]
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    with pytest.raises(CorpusError, match=f"{shard.name} (is damaged|cannot be read)"):
        Corpus(folder).cells("train").take([0])


def test_verify_reads_every_byte(folder, capsys):
    corpus = Corpus(folder)
    corpus.verify()
    corpus.verify(progress=True)
    assert "verify" in capsys.readouterr().err
    written = json.loads((folder / fmt.MANIFEST_FILE).read_text())["files"]
    assert written["genes.tsv"]["crc32"] == f"{zlib.crc32((folder / 'genes.tsv').read_bytes()):08x}"
    for path in (shards(folder)[1], folder / "groups_test.npy"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
    with pytest.raises(
        CorpusError, match=rf"damaged files: {shards(folder)[1].name}, groups_test.npy\. Copy the corpus"
    ):
        Corpus(folder).verify()


def test_only_some_shards_are_open_at_a_time(folder, monkeypatch):
    monkeypatch.setattr(cell_source, "_OPEN_SHARDS", 2)
    cells = Corpus(folder).cells("train")
    assert len(shards(folder)) > 3
    for _ in range(3):
        assert [cell.cell_id for cell in cells] == cells.cell_ids().tolist()
        assert len(cells._readers) == 2


def test_threads_share_a_source(folder):
    cells = Corpus(folder).cells("train")
    expected = cells.take(np.arange(len(cells)))
    with ThreadPoolExecutor(8) as pool:
        for block in pool.map(cells.take, [np.arange(len(cells))] * 32):
            np.testing.assert_array_equal(block.genes, expected.genes)


def test_flipped_bytes_in_a_shard(folder):
    shard = shards(folder)[0]
    content = bytearray(shard.read_bytes())
    pristine = Corpus(folder).cells("train").take(np.arange(5))
    content[100:400] = bytes(b ^ 0xFF for b in content[100:400])
    shard.write_bytes(bytes(content))
    with pytest.raises(CorpusError, match=shard.name):
        Corpus(folder).cells("train").take(np.arange(5))
    assert len(pristine) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version="1.0.0"), r"format 1\.0\.0.*reads 2\.0\.0"),
        (lambda m: m.pop("shards"), "is damaged"),
        (lambda m: m["files"].pop(next(n for n in m["files"] if "array_record" in n)), "does not list"),
    ],
)
def test_manifest_of_another_kind(folder, change, message):
    path = folder / fmt.MANIFEST_FILE
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(CorpusError, match=message):
        Corpus(folder)
