import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from c2s_jax.evaluation import Embedder
from c2s_jax.evaluation.context import Sentences


@pytest.fixture(scope="module")
def sentences(context) -> Sentences:
    rng = np.random.default_rng(0)
    return Sentences.of(
        [rng.permutation(len(context.corpus.genes))[:n].astype(np.int32) for n in (5, 1, 17, 40, 9, 100)]
    )


def test_mean_of_the_hidden_states_of_the_genes(context, sentences):
    model = nnx.merge(context.graphdef, context.params)
    t = context.formatter.tokenizer
    embedded = Embedder(context)(sentences)
    assert embedded.shape == (6, 16)
    for genes, vector in zip(sentences.lists()[:3], embedded):
        text = "".join(f" {context.corpus.genes.names[g]}" for g in genes)
        hidden = np.asarray(model.hidden(jnp.array([[t.bos_id, *t.encode(text)]])))[0]
        np.testing.assert_allclose(vector, hidden[1:].mean(axis=0), rtol=1e-4, atol=1e-5)


def test_independent_of_batch_and_padding(context, sentences):
    whole = Embedder(context)(sentences)
    np.testing.assert_allclose(Embedder(context, batch_size=4)(sentences), whole, rtol=1e-4, atol=1e-5)
    embed = Embedder(context, batch_size=4)
    for i in range(len(sentences)):
        alone = embed(sentences.select(np.array([i])))
        np.testing.assert_allclose(alone[0], whole[i], rtol=1e-4, atol=1e-5)
    backwards = np.arange(len(sentences))[::-1]
    np.testing.assert_allclose(embed(sentences.select(backwards)), whole[backwards], rtol=1e-4, atol=1e-5)


def test_order_of_genes_matters(context, sentences):
    reverse = Sentences.of([x[::-1] for x in sentences.lists()])
    assert np.abs(Embedder(context)(reverse) - Embedder(context)(sentences))[2:].max() > 1e-2


def test_a_sentence_without_genes(context):
    embedded = Embedder(context)(Sentences.of([np.empty(0, np.int32), np.array([1, 2], np.int32)]))
    assert np.isfinite(embedded).all()
    assert not embedded[0].any()
