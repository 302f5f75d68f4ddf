"""One visitor's cells, and what can be done with them. No widgets."""

import tempfile
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TypeVar

import anndata as ad
import scanpy as sc

from c2s_jax.inference import Model

T = TypeVar("T")
MAP, COMPONENTS = "X_umap", 30
ANSWER = 128  # tokens of an answer at most; a model that reads little answers in less
TURN = Lock()
"""One request at a time: others wait."""


class Session:
    """Cells of one visitor; the model is everyone's, and takes one request at a time.

    Attributes
    ----------
    adata
        The cells; None before some are chosen.
    use_raw
        Whether expression is in ``adata.raw``, as where ``X`` is scaled.
    generated
        Cells made last.
    """

    def __init__(self, model: Model):
        self.model = model
        self.adata: ad.AnnData | None = None
        self.generated: ad.AnnData | None = None
        self.use_raw = False

    @property
    def cells(self) -> ad.AnnData:
        """The cells, or an error that says how to get some."""
        if self.adata is None:
            raise ValueError("choose cells first: upload a file, or take the blood cells")
        return self.adata

    def take_bundled(self) -> str:
        """The 700 blood cells in scanpy's wheel."""
        return self._take(sc.datasets.pbmc68k_reduced(), "700 human blood cells (Zheng et al. 2017)")

    def take_file(self, content: bytes, name: str) -> str:
        """An uploaded ``.h5ad``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cells.h5ad"
            path.write_bytes(content)
            try:
                adata = ad.read_h5ad(path)
            except Exception as error:  # whatever a file of someone else makes of the reader
                raise ValueError(f"{name} cannot be read as .h5ad: {str(error).splitlines()[0]}") from error
        return self._take(adata, name)

    def annotate(self, labels: list[str]) -> str:
        """Name the cells' types."""
        adata = self.cells
        notes = _notes(lambda: self.model.annotate(adata, labels or None, progress=False, use_raw=self.use_raw))
        n = adata.obs["c2s_cell_type"].nunique()
        return f"Annotated {adata.n_obs:,} cells with {n} types.{notes}"

    def embed(self) -> str:
        """Embed the cells and lay them out anew."""
        adata = self.cells
        notes = _notes(lambda: self.model.embed(adata, progress=False, use_raw=self.use_raw))
        self._lay_out("X_c2s")
        return f"Embedded {adata.n_obs:,} cells; the map shows the model's own embedding.{notes}"

    def generate(self, cell_type: str, n: int) -> str:
        """Make new cells."""
        made: list[ad.AnnData] = []
        like = None if self.model.card else self.adata
        notes = _notes(lambda: made.append(self.model.generate(cell_type, n, like=like, progress=False)))
        (self.generated,) = made
        return (
            f"Made {n} cells of type {cell_type}, of {self.generated.obs['c2s_n_genes'].mean():.0f} genes each.{notes}"
        )

    def ask(self, question: str, n_cells: int) -> tuple[str, str]:
        """Answer a question; the answer, and what happened."""
        adata, answers = self.cells, []
        room = min(ANSWER, self.model.context // 4)
        options = dict(n_cells=n_cells, use_raw=self.use_raw, max_new_tokens=room)
        notes = _notes(lambda: answers.append(self.model.ask(adata, question, **options)))  # type: ignore[arg-type]
        return str(answers[0]) or "(the model answered nothing)", f"Asked about {n_cells} cells.{notes}"

    def download(self) -> BytesIO:
        """The cells with all results, as a file."""
        return _file(self.cells)

    def download_generated(self) -> BytesIO:
        """The cells made last, as a file."""
        if self.generated is None:
            raise ValueError("no cells were generated yet")
        return _file(self.generated)

    def _take(self, adata: ad.AnnData, name: str) -> str:
        if not adata.n_obs or not adata.n_vars:
            raise ValueError(f"{name} holds no cells")
        adata.obs_names_make_unique()
        sample = adata.X[:64] if adata.X is not None else None
        self.use_raw = bool(adata.raw is not None and (sample is None or sample.min() < 0))
        self.adata = adata
        if MAP not in adata.obsm:
            self._lay_out(None)
        return f"{name}: {adata.n_obs:,} cells × {adata.n_vars:,} genes."

    def _lay_out(self, representation: str | None) -> None:
        """A map of the cells, from an embedding or from principal components of their expression."""
        adata = self.cells
        plain = ad.AnnData(adata.raw.X if self.use_raw and adata.raw is not None else adata.X)
        if representation is None:
            sc.pp.normalize_total(plain)
            sc.pp.log1p(plain)
            sc.pp.pca(plain, n_comps=min(COMPONENTS, *(n - 1 for n in plain.shape)))
            representation = "X_pca"
        else:
            plain.obsm[representation] = adata.obsm[representation]
        sc.pp.neighbors(plain, use_rep=representation, n_neighbors=min(15, plain.n_obs - 1))
        sc.tl.umap(plain)
        adata.obsm[MAP] = plain.obsm["X_umap"]


def _notes(work: Callable[[], T]) -> str:
    """Do something when it is its turn; what it warns of, as sentences."""
    with TURN, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    told = [str(w.message) for w in caught if w.category is UserWarning and "c2s_jax" in w.filename]
    return "".join(f" Note: {text}." for text in dict.fromkeys(told))


def _file(adata: ad.AnnData) -> BytesIO:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        adata.write_h5ad(path, compression="gzip")
        return BytesIO(path.read_bytes())
