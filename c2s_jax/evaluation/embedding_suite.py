"""The model's embedding of held-out cells beside principal components: are types apart, are batches mixed?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax import metrics
from c2s_jax.data import CellSource
from c2s_jax.evaluation import exports
from c2s_jax.evaluation.context import Context, dense_expression, principal, sentences_of, some_of
from c2s_jax.evaluation.embedding import Embedder

BATCHES = ("batch", "donor", "assay")
SHUFFLES = 5


def embedding_metrics(
    context: Context,
    split: str,
    *,
    k: int,
    components: int,
    max_cells: int | None = None,
    seed: int = 0,
    folder: str = "",
) -> dict[str, Any]:
    """k-NN accuracy (votes of training cells), silhouette of types and mixing of batches on held-out cells.

    Beside the model: PCA of training expression. Scrambles: shuffled labels, and each cell's genes in random order,
    which a model that reads order has to beat. Of both splits at most ``max_cells`` cells (``some_of``). With a
    ``folder``, held-out cells under both embeddings are written there for ``scib-metrics`` (`exports.write_embedded`).
    """
    train, held_out = context.corpus.cells("train"), context.corpus.cells(split)
    rows = [some_of(np.flatnonzero(cells.fields("cell_type") != ""), max_cells) for cells in (train, held_out)]
    labels = [cells.fields("cell_type")[r] for cells, r in zip((train, held_out), rows)]
    batches = batches_of(held_out, rows[1])
    sentences = [sentences_of(cells, r, context.most_genes()) for cells, r in zip((train, held_out), rows)]
    embed, rng = Embedder(context), np.random.Generator(np.random.Philox(key=seed))
    model = [embed(s) for s in sentences]
    expression = [dense_expression(c, r, len(context.corpus.genes)) for c, r in zip((train, held_out), rows)]
    pca = principal(expression[0], components)
    if folder:
        exports.write_embedded(
            folder,
            expression=expression[1],
            embeddings={"X_c2s": model[1], "X_pca": pca.transform(expression[1])},
            obs={"cell_type": labels[1], "batch": np.full(len(rows[1]), "one") if batches is None else batches},
            genes=context.corpus.genes.names,
        )
    k = min(k, len(rows[0]))
    out = measured(model, labels, batches, k)
    shuffled = [_shuffled_labels(model, labels, k, rng) for _ in range(SHUFFLES)]
    return out | {
        "k": k,
        "n": len(rows[1]),
        "baselines": {"pca": measured([pca.transform(x) for x in expression], labels, batches, k)},
        "scrambles": {
            "shuffled_labels": {key: float(np.mean([s[key] for s in shuffled])) for key in shuffled[0]},
            "shuffled_genes": measured([embed(s.shuffled(seed)) for s in sentences], labels, None, k),
        },
    }


def batches_of(cells: CellSource, rows: NDArray) -> NDArray | None:
    """The first field by which these cells fall into batches."""
    for values in (*(cells.fields(name)[rows] for name in BATCHES), cells.dataset_ids[rows].astype(str)):
        if len(np.unique(values)) > 1:
            return values
    return None


def measured(cells: list[NDArray], labels: list[NDArray], batches: NDArray | None, k: int) -> dict[str, float]:
    """Figures of an embedding of training and held-out cells; what these cells have no value for is left out.

    Parameters
    ----------
    cells
        Training and held-out cells, [N, D] each.
    labels
        Their types, str [N] each.
    batches
        Of the held-out cells, str [N]; None where they are of one.
    k
        Neighbours that vote.
    """
    train, held_out = cells
    out = {"knn_accuracy": metrics.knn_accuracy(train, labels[0], held_out, labels[1], k=k)}
    if 2 <= len(np.unique(labels[1])) < len(held_out):
        out["silhouette"] = metrics.silhouette(held_out, labels[1])
    if batches is not None and _mixed(labels[1], batches):
        out["batch_mixing"] = metrics.batch_mixing(held_out, labels[1], batches)
    return out


def _mixed(labels: NDArray, batches: NDArray) -> bool:
    return any(2 <= len(np.unique(batches[labels == x])) < (labels == x).sum() for x in np.unique(labels))


def _shuffled_labels(cells: list[NDArray], labels: list[NDArray], k: int, rng: np.random.Generator) -> dict[str, float]:
    return measured(cells, [rng.permutation(x) for x in labels], None, k)
