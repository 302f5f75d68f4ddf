"""A model with its tokenizer and what it knows of cells: the functions for AnnData."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import anndata as ad

from c2s_jax.cells.ontology import CellOntology
from c2s_jax.inference import annotation, calibration, embeddings, generation
from c2s_jax.inference.asking import Asking
from c2s_jax.inference.inquiry import Reading
from c2s_jax.inference.pooling import Pooling


class Model(Asking):
    """A language model of cells, ready for use; ``c2s_jax.load`` makes one.

    Functions take an AnnData and write into it, as scanpy's do; with ``copy=True`` they return a changed copy instead.
    All take the further keyword arguments of ``inference.Reading``, which say where expression is and what prompts
    tell, and record what they did in ``adata.uns["c2s"]``.
    """

    def annotate(
        self,
        adata: ad.AnnData,
        labels: Sequence[str] | None = None,
        *,
        free_text: bool = False,
        n_prompts: int = 1,
        temperature: float = 1.0,
        ontology: CellOntology | str | Path | None = None,
        key_added: str = "c2s_cell_type",
        resume: str | Path | None = None,
        progress: bool = True,
        copy: bool = False,
        **reading: Unpack[Reading],
    ) -> ad.AnnData | None:
        """Name the type of each cell.

        Every candidate label is scored by its probability as an answer to the prompt that shows the cell; the
        probabilities are normalised over the candidates, so that they sum up to 1 and nothing has to be parsed.

        Parameters
        ----------
        adata
            Cells × genes, in memory or backed by its file. Cells that express no gene of the model get no value.
        labels
            Candidates; by default the types the model met in training. A model that brings none answers in free text.
        free_text
            Let the model write its answer, whatever ``labels`` could be.
        n_prompts
            Wordings to ask each cell with; their probabilities are averaged.
        temperature
            Of the candidates' probabilities, which become ``p ** (1 / temperature)``, normalised: what ``calibrate``
            gave on cells whose types are known. 1 leaves the model's own.
        ontology
            The Cell Ontology or its file (``cl.obo``): answers get its ids and labels, too.
        key_added
            Name of the results.
        resume
            Folder that keeps the results of each block of cells: after a stop, the same call goes on from there.
        progress
            Show a bar with cells a second and the time left.
        copy
            Return a copy with the results.
        **reading
            See ``inference.Reading``.

        Returns
        -------
        None, or a copy, with

        ``obs[key_added]`` : categorical
            The most probable label.
        ``obs[key_added + "_logprob"]`` : float32
            Log of its probability among the candidates, or, of an answer in free text, of the answer.
        ``obs[key_added + "_mass"]`` : float32
            Probability the model gives to the candidates together; low where it would rather have answered otherwise.
            Not with free text.
        ``obsm[key_added + "_probabilities"]`` : float32 [cells, labels]
            Of every candidate, in the order of ``uns["c2s"]["annotate"]["labels"]``. Not with free text.
        ``obs[key_added + "_ontology_term_id"]``, ``obs[key_added + "_ontology_term"]`` : categorical
            With ``ontology``: the term that the answer stands for; missing where none fits.

        Examples
        --------
        >>> model.annotate(adata, labels=["B cell", "NK cell", "monocyte"])  # doctest: +SKIP
        >>> sc.pl.umap(adata, color="c2s_cell_type")  # doctest: +SKIP
        """
        adata, out = _target(adata, copy)
        options: dict[str, Any] = dict(free_text=free_text, n_prompts=n_prompts, ontology=ontology)
        options |= dict(temperature=temperature)
        options |= dict(key_added=key_added, resume=resume, progress=progress)
        with self._lock:
            annotation.annotate(self, adata, labels, **options, **reading)
        return out

    def calibrate(
        self,
        adata: ad.AnnData,
        truth: str,
        labels: Sequence[str] | None = None,
        *,
        n_prompts: int = 1,
        resume: str | Path | None = None,
        progress: bool = True,
        **reading: Unpack[Reading],
    ) -> float:
        """Fit the temperature for ``annotate`` on cells whose types are known, e.g. a validation split.

        Parameters
        ----------
        adata
            Cells that are not those to annotate, nor any the model was trained on.
        truth
            Column of ``obs`` with their types, spelt as the candidates.
        labels, n_prompts, resume, progress, **reading
            As for ``annotate``; give the same in both.

        Returns
        -------
        The temperature at which the known types are most probable (Guo et al. 2017, arXiv:1706.04599); above 1 where
        the model is too sure of itself.

        Raises
        ------
        ValueError
            If there is no such column, or no cell's type is a candidate.
        """
        options: dict[str, Any] = dict(n_prompts=n_prompts, resume=resume, progress=progress)
        with self._lock:
            return calibration.calibrate(self, adata, truth, labels, **options, **reading)

    def embed(
        self,
        adata: ad.AnnData,
        *,
        layer: int = -1,
        pooling: Pooling = "mean",
        key_added: str = "X_c2s",
        resume: str | Path | None = None,
        progress: bool = True,
        copy: bool = False,
        **reading: Unpack[Reading],
    ) -> ad.AnnData | None:
        """Embed each cell: the mean of a layer's hidden states over the tokens of its annotation prompt.

        A vector depends on its cell and prompt alone, never on padding or on what it was batched with.

        Parameters
        ----------
        adata
            As for ``annotate``. Cells that express no gene of the model get NaN.
        layer
            Layer of the model, 1 … ``config.num_layers``; 0 is its input, negative numbers count from the last. After
            the last layer comes the final norm, as in transformers.
        pooling
            ``"mean"`` over tokens, or the ``"last"`` token.
        key_added, resume, progress, copy, **reading
            As for ``annotate``.

        Returns
        -------
        None, or a copy, with ``obsm[key_added]``, float32 [cells, D], for ``sc.pp.neighbors(adata, use_rep="X_c2s")``.
        """
        adata, out = _target(adata, copy)
        options: dict[str, Any] = dict(pooling=pooling, key_added=key_added, resume=resume, progress=progress)
        with self._lock:
            embeddings.embed(self, adata, layer=layer, **options, **reading)
        return out

    def embed_groups(
        self,
        adata: ad.AnnData,
        groupby: str,
        *,
        n_cells: int = 10,
        n_contexts: int = 1,
        layer: int = -1,
        pooling: Pooling = "mean",
        seed: int = 0,
        progress: bool = True,
        **reading: Unpack[Reading],
    ) -> ad.AnnData:
        """Embed several cells read together, e.g. those of a donor or a cluster.

        Parameters
        ----------
        groupby
            Column of ``adata.obs``.
        n_cells, n_contexts
            Cells drawn for a context, and contexts a group; without replacement, keyed by the cells' names and
            ``seed``.
        layer, pooling, progress, **reading
            As for ``embed``; ``metadata`` is that of a context's first cell.

        Returns
        -------
        AnnData with one row a context: ``obs`` has the group and its cells, ``obsm["X_c2s"]`` the vectors.
        """
        options: dict[str, Any] = dict(
            n_cells=n_cells, n_contexts=n_contexts, pooling=pooling, seed=seed, progress=progress
        )
        with self._lock:
            return embeddings.embed_groups(self, adata, groupby, layer=layer, **options, **reading)

    def generate(
        self,
        cell_type: str | Sequence[str] | Mapping[str, int],
        n: int = 1,
        n_genes: int | None = None,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        organism: str | None = None,
        fields: Mapping[str, str] | None = None,
        prompts: str | None = None,
        like: ad.AnnData | None = None,
        dataset: str | None = None,
        constrain: bool = True,
        drafts: bool = False,
        progress: bool = True,
    ) -> ad.AnnData:
        """Make new cells of a type.

        Parameters
        ----------
        cell_type
            A type, several, or the number of cells by type.
        n
            Cells a type.
        n_genes
            Genes a cell; by default as many as in training, or as fit what the model reads at once.
        temperature, top_p, seed
            How tokens are drawn, see ``generation.Sampling``.
        organism, fields, prompts
            See ``inference.Reading``.
        like
            Cells that give genes and the rank→expression line to a model that brings none.
        dataset
            Whose rank→expression line to use, of the model's; by default the one fitted on most.
        constrain
            Write nothing but names of the model's genes, each once, and ``n_genes`` of them. Without it the model
            writes what it likes, for as long as it likes.
        drafts
            Guess names and have the model check several tokens in a pass (speculative decoding). The cells are the
            same; whether it is faster hangs on the machine and the number of cells, see docs/generation.md.
        progress
            Show a bar.

        Returns
        -------
        AnnData of generated cells: ``X`` is log10(1 + normalised expression), CSR float32, read off the rank→expression
        line (``uns["log1p"]`` tells scanpy the base); ``obs`` has the type, the number of genes, and how many unknown
        and repeated names were left out.
        """
        options: dict[str, Any] = dict(
            n_genes=n_genes, temperature=temperature, top_p=top_p, seed=seed, organism=organism
        )
        options |= dict(fields=fields, prompts=prompts, like=like, dataset=dataset)
        options |= dict(constrain=constrain, drafts=drafts, progress=progress)
        with self._lock:
            return generation.generate(self, cell_type, n, **options)

    def perturb(
        self,
        adata: ad.AnnData,
        perturbation: str,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        dataset: str | None = None,
        constrain: bool = True,
        drafts: bool = False,
        resume: str | Path | None = None,
        progress: bool = True,
        **reading: Unpack[Reading],
    ) -> ad.AnnData:
        """Predict cells under a perturbation, from cells without it.

        A model trained on ``perturbation_response`` sees each cell; one trained on ``perturbed_cell_generation`` its
        type only (``metadata={"cell_type": …}``, by default ``obs["cell_type"]``).

        Parameters
        ----------
        adata
            Unperturbed cells.
        perturbation
            As the model knows it, e.g. ``"IFN-beta"``.
        temperature, top_p, seed, dataset, constrain, drafts
            As for ``generate``.
        resume, progress, **reading
            As for ``annotate``.

        Returns
        -------
        AnnData of the same cells as predicted, built as ``generate`` does, with the ``obs`` of ``adata``.
        """
        options: dict[str, Any] = dict(temperature=temperature, top_p=top_p, seed=seed, dataset=dataset)
        options |= dict(constrain=constrain, drafts=drafts, resume=resume, progress=progress)
        with self._lock:
            return generation.perturb(self, adata, perturbation, **options, **reading)


def _target(adata: ad.AnnData, copy: bool) -> tuple[ad.AnnData, ad.AnnData | None]:
    """What to write into, and what to return."""
    if adata.is_view and not copy:
        raise ValueError("adata is a view of another AnnData: pass copy=True, or adata.copy()")
    if not copy:
        return adata, None
    copied = adata.to_memory() if adata.isbacked else adata.copy()
    return copied, copied
