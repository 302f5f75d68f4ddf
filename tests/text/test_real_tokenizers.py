"""The tokenizers of the released checkpoints with all human and mouse genes. Skipped where their files are absent."""

import gzip
import json
import shutil

import numpy as np
import pytest
import sentencepiece

from c2s_jax.text import GeneTokenTable, load_tokenizer
from tests.text.neox import gene_lists, real_file
from tests.text.test_gene_table import FORMS, sentence

TEXTS = ["", " ", "a  b\n\nc", "\tx\n\n\n     y ", "Zell-Typ: ü™🧬 ①", "Cell 1:\nHLA-DRA .\nCell 2:", "IFN-β <b>x</b>"]
SPECIES = {"human": "genes_homo_sapiens.csv.gz", "mouse": "genes_mus_musculus.csv.gz"}


@pytest.fixture(scope="module", params=["gemma", "neox"])
def real(request, tmp_path_factory):
    """Our tokenizer, and transformers' ids of texts, without a beginning."""
    transformers = pytest.importorskip("transformers", reason="the reference")
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "gemma":
        shutil.copy(real_file("tokenizer_gemma2", "tokenizer.model"), folder)
        shutil.copy(real_file("tokenizer_gemma2", "tokenizer_config.json"), folder)
    else:
        shutil.copy(real_file("tokenizer_gpt_neox", "20B_tokenizer.json"), folder / "tokenizer.json")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPTNeoXTokenizer"}')
    oracle = transformers.AutoTokenizer.from_pretrained(folder)
    return load_tokenizer(folder), lambda texts: oracle(texts, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module", params=SPECIES)
def names(request) -> list[str]:
    """Every gene symbol of GENCODE once."""
    with gzip.open(real_file("vocab_genes", SPECIES[request.param]), "rt") as file:
        return list(dict.fromkeys(line.split(",")[1] for line in file))


def test_gene_table_is_exact_on_every_gene(real, names):
    tokenizer, oracle = real
    table = GeneTokenTable.build(tokenizer, names)
    assert len(table) > 70_000
    for seed, (leading, trailing) in enumerate(FORMS):
        lists = gene_lists(len(names), 50, 200, seed)
        expected = oracle([sentence(names, genes, leading, trailing) for genes in lists])
        indptr = np.concatenate([[0], np.cumsum([len(genes) for genes in lists])])
        tokens, ends = table.encode_many(np.concatenate(lists), indptr, leading, trailing)
        for found, ids in zip(np.split(tokens, ends[1:-1]), expected, strict=True):
            np.testing.assert_array_equal(found, ids)


def test_texts(real):
    tokenizer, oracle = real
    assert tokenizer.encode_batch(TEXTS) == oracle(TEXTS)
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(TEXTS)] == TEXTS


def test_ids_of_gpt_neox():
    t = load_tokenizer(real_file("tokenizer_gpt_neox", "20B_tokenizer.json"))
    assert (t.vocab_size, t.pad_id, t.bos_id, t.eos_id, t.stop_ids) == (50_277, 1, None, 0, (0,))


def test_ids_of_gemma():
    path = real_file("tokenizer_gemma2", "tokenizer.model")
    t, oracle = load_tokenizer(path.parent), sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert (t.vocab_size, t.pad_id, t.bos_id, t.eos_id, t.stop_ids) == (256_000, 0, 2, 1, (1, 107))
    assert t.encode_batch(TEXTS) == oracle.Encode(TEXTS)


def test_gemma_converted_by_transformers_alone(tmp_path):
    """A folder with nothing but the ``tokenizer.json`` that transformers writes."""
    transformers = pytest.importorskip("transformers", reason="converts the model")
    path = real_file("tokenizer_gemma2", "tokenizer.model")
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    shutil.copy(path, source)
    shutil.copy(real_file("tokenizer_gemma2", "tokenizer_config.json"), source)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(source / "saved")
    shutil.copy(source / "saved" / "tokenizer.json", folder)
    assert json.loads((folder / "tokenizer.json").read_text())["model"]["byte_fallback"]
    ours, model = load_tokenizer(folder), load_tokenizer(path)
    for name in ("vocab_size", "pad_id", "bos_id", "eos_id", "stop_ids"):
        assert getattr(ours, name) == getattr(model, name), name
    genes = [f" HLA-DRA{i}.CD{i} Rik{i}(ps)." for i in range(300)]
    texts = [
        *TEXTS,
        *genes,
        "<eos>a<bos> <pad>",
        "<start_of_turn>user\n<end_of_turn>\n",
        "<mask><unused3>",
        "<|endoftext|>",
    ]
    assert ours.encode_batch(texts) == model.encode_batch(texts)
    assert [ours.decode(ids) for ids in ours.encode_batch(texts)] == texts
