"""Questions about cells, answered in words: ``Model.ask``, ``caption`` and ``describe``."""

from collections.abc import Mapping
from typing import Any, Unpack

import anndata as ad

from c2s_jax.inference import questions
from c2s_jax.inference.inquiry import Reading
from c2s_jax.inference.language_model import LanguageModel


class Asking(LanguageModel):
    """A language model of cells that answers in words."""

    def ask(
        self,
        adata: ad.AnnData,
        question: str,
        *,
        groupby: str | None = None,
        n_cells: int = 10,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        progress: bool = False,
        **reading: Unpack[Reading],
    ) -> str | dict[str, str]:
        """Ask a question about cells.

        Parameters
        ----------
        question
            In plain words.
        groupby
            Column of ``adata.obs``: ask about each of its groups.
        n_cells
            Cells shown, drawn by their names and ``seed``.
        max_new_tokens, temperature, top_p, seed
            Length and drawing of the answer; by default the most probable one.
        progress, **reading
            As for ``annotate``.

        Returns
        -------
        The answer, or the answer by group; also in ``adata.uns["c2s"]["ask"]``, with the cells shown.
        """
        options: dict[str, Any] = dict(
            n_cells=n_cells, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p
        )
        options |= dict(seed=seed, progress=progress, **reading)
        return self._answers(adata, questions.ASK, groupby, options | dict(question=question))

    def caption(
        self,
        adata: ad.AnnData,
        groupby: str,
        *,
        n_cells: int = 2,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        progress: bool = False,
        **reading: Unpack[Reading],
    ) -> dict[str, str]:
        """Describe each cluster in words; arguments as for ``ask``.

        Returns
        -------
        Caption by group; also in ``adata.uns["c2s"]["caption"]``.
        """
        options: dict[str, Any] = dict(
            n_cells=n_cells, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p
        )
        found = self._answers(
            adata, questions.CAPTION, groupby, options | dict(seed=seed, progress=progress, **reading)
        )
        assert isinstance(found, dict)
        return found

    def describe(
        self,
        adata: ad.AnnData,
        *,
        groupby: str | None = None,
        n_cells: int = 10,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        progress: bool = False,
        **reading: Unpack[Reading],
    ) -> str | dict[str, str]:
        """Write an abstract for the study that cells may come from; arguments as for ``ask``.

        Returns
        -------
        The text, or the text by group; also in ``adata.uns["c2s"]["describe"]``.
        """
        options: dict[str, Any] = dict(
            n_cells=n_cells, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p
        )
        return self._answers(
            adata, questions.DESCRIBE, groupby, options | dict(seed=seed, progress=progress, **reading)
        )

    def _answers(
        self, adata: ad.AnnData, task: str, groupby: str | None, options: Mapping[str, Any]
    ) -> str | dict[str, str]:
        with self._lock:
            found = questions.answers(self, adata, task, groupby=groupby, **options)
        return found["all"] if groupby is None else found
