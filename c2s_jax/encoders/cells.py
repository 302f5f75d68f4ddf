"""Cells as vectors, by scGPT's encoder."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray
from scipy import sparse

from c2s_jax.cells import CellDataError, hash_strings, mix
from c2s_jax.cells.source import as_csr, bad_values, select_source
from c2s_jax.data.by_length import by_length
from c2s_jax.encoders.binning import Ties, bin_values
from c2s_jax.models.scgpt import ScGPT
from c2s_jax.models.scgpt_files import scgpt_from_folder

CLS, CLS_VALUE = "<cls>", -2.0
BLOCK = 1024  # cells read at once


class CellEncoder:
    """scGPT ready for use: the last hidden state of ``<cls>``, scaled to length 1.

    A cell's vector depends on its own values, its name and the seed, never on the other cells or their order.

    Parameters
    ----------
    module
        The encoder.
    vocabulary
        Id of each gene name, and of ``<cls>``.
    max_length
        Most genes of a cell that are read, ``<cls>`` included; of a cell with more, a keyed random subset.
    batch_size
        Cells encoded at once; compiled programs have this many rows.

    Examples
    --------
    >>> encoder = load_cell_encoder("scGPT_human")  # doctest: +SKIP
    >>> adata.obsm["X_scGPT"] = encoder.encode_cells(adata)  # doctest: +SKIP
    """

    def __init__(self, module: ScGPT, vocabulary: Mapping[str, int], *, max_length: int = 1200, batch_size: int = 32):
        if max_length < 2:
            raise ValueError(f"max_length={max_length} leaves no room for a gene beside <cls>")
        self.config = module.config
        self.vocabulary, self.max_length, self.batch_size = dict(vocabulary), max_length, batch_size
        self.graphdef, self.params = nnx.split(module)

    def encode_cells(
        self,
        adata: ad.AnnData,
        *,
        layer: str | None = None,
        gene_symbols: str | None = None,
        ties: Ties = "seeded",
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """A vector a cell.

        Parameters
        ----------
        adata
            Cells × genes, counts or normalised, in memory or backed. Genes that scGPT does not know are left out; a
            cell that expresses none of the others is encoded as ``<cls>`` alone.
        layer
            Name in ``adata.layers``; by default ``adata.X``.
        gene_symbols
            Column of ``adata.var`` with gene names; by default ``adata.var_names``.
        ties
            Which bin a value on several edges goes to; see ``binning``.
        seed
            Of ties and of subsets, with the cell's and the gene's names.

        Returns
        -------
        float32 [N, D]

        Raises
        ------
        CellDataError
            When scGPT knows none of the genes, or values are negative or not finite.
        """
        name, matrix, var = select_source(adata, layer, None)
        if gene_symbols is not None and gene_symbols not in var:
            raise CellDataError(f"adata.var has no column {gene_symbols!r}; it has {', '.join(map(str, var.columns))}")
        genes = [str(gene) for gene in (var.index if gene_symbols is None else var[gene_symbols])]
        out = np.empty((adata.n_obs, self.config.embed_dim), np.float32)
        for start in range(0, adata.n_obs, BLOCK):
            rows = slice(start, min(start + BLOCK, adata.n_obs))
            block, cells = as_csr(matrix[rows], name), adata.obs_names[rows].tolist()
            if fault := bad_values(block, cells, genes, first_row=start):
                raise CellDataError(f"adata.{name} {fault}. scGPT reads counts or normalised expression")
            out[rows] = self.encode(block, genes, cells, ties=ties, seed=seed)
        return out

    def encode(
        self,
        matrix: sparse.csr_matrix,
        genes: Sequence[str],
        cells: Sequence[str],
        *,
        ties: Ties = "seeded",
        seed: int = 0,
        uniforms: NDArray | None = None,
    ) -> NDArray[np.float32]:
        """A vector a row of a matrix.

        Parameters
        ----------
        matrix
            [N, G], non-negative, without stored zeros.
        genes, cells
            Names [G] and [N].
        ties, seed
            See ``encode_cells``.
        uniforms
            In place of ``ties``: one number in [0, 1) for each nonzero value of genes in the vocabulary, in the
            matrix's order.

        Returns
        -------
        float32 [N, D]
        """
        ids = np.array([self.vocabulary.get(gene, -1) for gene in genes], np.int64)
        if not (ids >= 0).any():
            shown = ", ".join(map(repr, list(genes)[:3]))
            raise CellDataError(
                f"scGPT knows none of the {len(genes):,} genes ({shown}, …); it takes symbols like 'CD3D'"
            )
        kept = np.flatnonzero(ids >= 0)
        known = sparse.csr_matrix(matrix)[:, kept]
        known.sort_indices()
        values = known.data
        keys = _keys(known, cells, np.asarray(genes)[kept], seed)
        given = _uniforms(ties, keys) if uniforms is None else _checked(uniforms, len(values))
        bins = bin_values(values, known.indptr, given)
        keep = _subset(known.indptr, keys, self.max_length - 1)
        rows = np.repeat(np.arange(known.shape[0]), np.diff(known.indptr))[keep]
        indptr = np.searchsorted(rows, np.arange(known.shape[0] + 1))
        return self._run(ids[kept][known.indices][keep], bins[keep], indptr)

    def _run(self, genes: NDArray, bins: NDArray, indptr: NDArray) -> NDArray[np.float32]:
        lengths = np.diff(indptr) + 1
        out = np.empty((len(lengths), self.config.embed_dim), np.float32)
        for rows, (_, size) in by_length(lengths, self.batch_size, longest=self.max_length):
            inside = np.arange(1, size) < lengths[rows, None]
            at = (indptr[rows, None] + np.arange(size - 1))[inside]
            tokens = np.full((self.batch_size, size), self.vocabulary[CLS], np.int32)
            values = np.full((self.batch_size, size), CLS_VALUE, np.float32)
            tokens[: len(rows), 1:][inside], values[: len(rows), 1:][inside] = genes[at], bins[at]
            sizes = np.ones(self.batch_size, np.int32)
            sizes[: len(rows)] = lengths[rows]
            out[rows] = _cls(self.graphdef, self.params, tokens, values, sizes)[: len(rows)]
        return out


@partial(jax.jit, static_argnames="graphdef")
def _cls(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    genes: Int[Array, "B T"],
    values: Float[Array, "B T"],
    lengths: Int[Array, "B"],
) -> Float[Array, "B D"]:
    cls = nnx.merge(graphdef, params)(genes, values, lengths)[:, 0].astype(jnp.float32)
    return cls / jnp.linalg.norm(cls, axis=-1, keepdims=True)


def _keys(matrix: sparse.csr_matrix, cells: Sequence[str], genes: NDArray, seed: int) -> NDArray[np.uint64]:
    """A random number for each (cell, gene) with a value."""
    cell_keys = hash_strings(cells, seed=seed, domain="scgpt cell")
    gene_keys = hash_strings(genes, seed=seed, domain="scgpt gene")
    return mix(np.repeat(cell_keys, np.diff(matrix.indptr)) ^ gene_keys[matrix.indices])


def _uniforms(ties: Ties, keys: NDArray[np.uint64]) -> NDArray | float:
    if ties == "midpoint":
        return 0.5
    if ties != "seeded":
        raise ValueError(f"ties={ties!r} is not one of seeded, midpoint")
    return (keys >> np.uint64(11)) * 2.0**-53


def _checked(uniforms: Any, n: int) -> NDArray:
    uniforms = np.asarray(uniforms, np.float64)
    if uniforms.shape != (n,) or (uniforms < 0).any() or (uniforms >= 1).any():
        raise ValueError(f"uniforms must be {n:,} numbers in [0, 1), one a value; they have shape {uniforms.shape}")
    return uniforms


def _subset(indptr: NDArray, keys: NDArray[np.uint64], most: int) -> NDArray[np.bool_]:
    """Which values are read: of a cell with more than ``most``, those of the smallest keys (after another mixing)."""
    counts = np.diff(indptr)
    if counts.max(initial=0) <= most:
        return np.ones(len(keys), bool)
    rows = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((mix(keys + np.uint64(0x9E3779B97F4A7C15)), rows))
    keep = np.empty(len(keys), bool)
    keep[order] = np.arange(len(keys)) - np.repeat(indptr[:-1], counts) < most
    return keep


def load_cell_encoder(
    folder: str | Path, *, max_length: int = 1200, dtype: str = "float32", batch_size: int = 32
) -> CellEncoder:
    """Load a released scGPT from its folder (``args.json``, ``vocab.json``, ``best_model.pt``).

    Raises
    ------
    FileNotFoundError, ValueError
        See ``models.scgpt_files.scgpt_from_folder``.
    """
    module, vocabulary = scgpt_from_folder(folder, dtype=dtype)
    return CellEncoder(module, vocabulary, max_length=max_length, batch_size=batch_size)
