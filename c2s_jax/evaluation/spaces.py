"""Spaces in which perturbed cells are compared."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.cells.gmt import is_gmt
from c2s_jax.data import Corpus
from c2s_jax.data.chosen_genes import chosen_genes
from c2s_jax.encoders import load_cell_encoder
from c2s_jax.evaluation.context import Context, principal
from c2s_jax.evaluation.embedding import Embedder
from c2s_jax.evaluation.sides import Cells, Embed

MODEL = "model"
GENE_SETS = 5  # of a corpus that has more


def check(names: Sequence[str]) -> None:
    """Refuse entries of ``evaluation.more_spaces`` that are no space."""
    for name in names:
        folder = Path(name)
        if name != MODEL and not _genes_file(name) and not (folder / "args.json").is_file():
            raise ValueError(
                f'evaluation.more_spaces names {name!r}, which is neither "model", nor genes (FILE.gmt:SET[+SET...]), '
                "nor a folder of scGPT (with args.json, vocab.json and best_model.pt)"
            )
    called = [_called(name) for name in names]
    if twice := {name for name in called if called.count(name) > 1}:
        raise ValueError(f"evaluation.more_spaces has two spaces called {', '.join(sorted(twice))}")


def further(
    context: Context, train: NDArray[np.float32], names: Sequence[str], sets: Sequence[int], *, components: int
) -> dict[str, tuple[str, Embed]]:
    """Spaces by name: what each is, for people, and the way into it.

    Parameters
    ----------
    train
        Expression of training cells [C, G], whose principal components are taken on genes.
    names
        ``evaluation.more_spaces``: "model", genes as in ``chosen_genes``, folders of scGPT.
    sets
        Numbers of gene sets of the corpus.
    """
    corpus = context.corpus
    out = {}
    for number in sets:
        found = corpus.gene_sets[number]
        out[found.name] = _of_genes(train, found.genes, found.name, components)
    for name in names:
        called = _called(name)
        if name == MODEL:
            out[called] = ("the model's own embedding", functools.lru_cache(2)(_of_model(context)))
        elif _genes_file(name):
            out[called] = _of_genes(train, chosen_genes(corpus, name), called, components)
        else:
            out[called] = (f"scGPT's embedding ({called})", functools.lru_cache(2)(_of_scgpt(corpus, name)))
    return out


def most_moved(corpus: Corpus, shifts: Sequence[NDArray]) -> list[int]:
    """Numbers of the gene sets that perturbations move most.

    Parameters
    ----------
    shifts
        Change of each gene [G] in each condition; where there is none, the first sets are taken.

    Notes
    -----
    A set's score is how far the mean absolute change of its genes is above that of all genes, times the root of their
    number, so that small sets are not ahead by chance.
    """
    sets = corpus.gene_sets
    if not shifts or len(sets) <= GENE_SETS:
        return list(range(min(len(sets), GENE_SETS)))
    change = np.mean([np.abs(shift) for shift in shifts], axis=0)
    scores = [(change[s.genes].mean() - change.mean()) * np.sqrt(len(s.genes)) for s in sets]
    return np.argsort(scores, kind="stable")[::-1][:GENE_SETS].tolist()


def _genes_file(name: str) -> bool:
    return is_gmt(name.partition(":")[0])


def _called(name: str) -> str:
    path, _, sets = name.partition(":")
    return sets or (Path(path).name.partition(".gmt")[0] if _genes_file(name) else Path(path).name)


def _of_genes(train: NDArray, genes: NDArray, name: str, components: int) -> tuple[str, Embed]:
    pca = principal(train[:, genes], components)
    what = f"{pca.n_components_} principal components of training expression of the {len(genes)} genes of {name}"
    return what, lambda cells: pca.transform(cells.expression[:, genes])


def _of_model(context: Context) -> Embed:
    embed = Embedder(context)
    return lambda cells: embed(cells.sentences)


def _of_scgpt(corpus: Corpus, folder: str) -> Embed:
    encoder = load_cell_encoder(folder)

    def embed(cells: Cells) -> NDArray:
        names = [str(i) for i in range(len(cells.expression))]
        return encoder.encode(sparse.csr_matrix(np.maximum(cells.expression, 0)), corpus.genes.names, names)

    return embed
