"""Rewards under encoders, against the encoders used by hand."""

import json

import numpy as np
import pytest
from scipy import sparse
from transformers import BertTokenizer

from c2s_jax.data.chosen_genes import chosen_genes
from c2s_jax.encoders import load_text_encoder
from c2s_jax.encoders.cells import load_cell_encoder
from c2s_jax.metrics import bertscore
from c2s_jax.rl.rewards import Rewards
from tests.models.bert_checkpoints import SIZES, make_bert, save_bert
from tests.models.scgpt_oracle import Reference, write_folder
from tests.rl.conftest import GENES
from tests.rl.test_rewards import dense, reconstructed


@pytest.fixture(scope="module")
def scgpt(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("cells") / "scgpt", Reference())
    vocabulary = json.loads((folder / "vocab.json").read_text())
    ours = dict(zip(vocabulary, GENES))  # the first of its genes get our names
    (folder / "vocab.json").write_text(json.dumps({ours.get(name, name): i for name, i in vocabulary.items()}))
    return str(folder)


@pytest.mark.parametrize("real", ["drawn", "mean"])
def test_cell_mse_in_an_embedding(corpus, completions, scgpt, real) -> None:
    """Only the chosen genes reach the encoder."""
    genes = "IFI6,ISG15,MX1,CD3D,CD8A,NKG7,ACTB"
    columns = chosen_genes(corpus, genes)
    names = [GENES[i] for i in columns]
    encoder = load_cell_encoder(scgpt)
    found = completions(["IFI6 MX1 ACTB", "CD3D"], [1, 0])

    def encode(rows, cells):
        return encoder.encode(sparse.csr_matrix(np.float32(rows)[:, columns]), names, cells)

    made = encode([reconstructed(t.split()) for t in found.texts], ["0", "1"])
    value = Rewards({"cell_mse": {"genes": genes, "encoder": scgpt, "real": real}}, found.world)(found).total
    for i, same in enumerate(([1, 3], [0, 2])):
        distances = [np.mean((made[i] - x) ** 2) for x in encode(dense(corpus, same), corpus.source.cell_ids(same))]
        wanted = [np.mean(distances)] if real == "mean" else distances
        assert np.isclose(value[i], -np.array(wanted), rtol=1e-3).any()


def test_bert_score(completions, tmp_path) -> None:
    folder = save_bert(make_bert(), tmp_path / "bert")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] blood cells of the liver are many few".split()
    words += [f"[unused{i}]" for i in range(SIZES["vocab_size"] - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=SIZES["max_position_embeddings"]).save_pretrained(folder)
    texts, wanted = ["cells of the liver", "blood"], "few cells of the liver are blood cells"
    found = completions(texts, [0, 0], task="question_answering", references=[wanted] * 2)
    for layer in (0, 2):
        by_hand = bertscore(texts, [wanted] * 2, load_text_encoder(folder), layer=layer or None).f1
        value = Rewards({"bert_score": {"encoder": str(folder), "layer": layer}}, found.world)(found).total
        np.testing.assert_allclose(value, by_hand, rtol=1e-5)
