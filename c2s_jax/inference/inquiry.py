"""Everything between an AnnData and the prompts about its cells."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, TypedDict

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells.errors import shown
from c2s_jax.data.ragged import offsets, take_rows
from c2s_jax.data.texts import Texts
from c2s_jax.inference.language_model import LanguageModel
from c2s_jax.inference.organisms import organism_of
from c2s_jax.inference.prompting import Asker, Column, Prompts, choose_templates, shared, texts_of
from c2s_jax.inference.reading import Block, CellReader
from c2s_jax.tasks import TASKS, Template


class Reading(TypedDict, total=False):
    """How cells are read and asked about; keyword arguments of all functions that take an AnnData.

    Attributes
    ----------
    expression_layer, use_raw, gene_column
        Where expression is: ``adata.layers[expression_layer]``, ``adata.raw`` or (default) ``adata.X``; and the column
        of ``var`` with gene symbols, where ``var_names`` are not. Counts or normalised values, logged or not; not
        scaled ones.
    n_genes
        Most genes a cell's sentence has; by default as many as in training.
    organism
        E.g. ``"Homo sapiens"``; by default that of the model's cells or of ``adata``.
    metadata
        Columns of ``adata.obs`` to tell in prompts, by field: ``{"tissue": "tissue_general"}``.
    fields
        Texts to tell in all prompts, by field: ``{"tissue": "lung"}``.
    prompts
        Wording: ``"c2s_jax"``, ``"cell2sentence"`` (the files of that package, where it is installed; for released
        checkpoints) or a folder of one's own. By default as in training.
    """

    expression_layer: str | None
    use_raw: bool | None
    gene_column: str | None
    n_genes: int | None
    organism: str | None
    metadata: Mapping[str, str] | None
    fields: Mapping[str, str] | None
    prompts: str | None


@dataclasses.dataclass
class Told:
    """What has to be said about cells that were asked about."""

    cells: int = 0
    cut: int = 0
    fewest: int = 0
    empty: list[str] = dataclasses.field(default_factory=list)
    n_empty: int = 0

    def add(self, prompts: Prompts) -> None:
        """Count prompts that were cut."""
        self.cells += len(prompts.cut)
        if prompts.cut.any():
            self.cut += int(prompts.cut.sum())
            here = int(prompts.genes[prompts.cut].min())
            self.fewest = min(self.fewest, here) if self.fewest else here

    def sentences(self, context: int) -> list[str]:
        """In words."""
        out = []
        if self.cut:
            out.append(
                f"{self.cut} of {self.cells} prompts were cut to the {context} tokens that the model reads: the least "
                f"expressed genes are left out, at least {self.fewest} remain"
            )
        if self.n_empty:
            out.append(
                f"{self.n_empty} cells express no gene of the model and have no result: {shown(self.empty, 3)}"
                f"{', …' if self.n_empty > len(self.empty) else ''}"
            )
        return out


class Inquiry:
    """Cells of an AnnData and the prompts of one task about them.

    Parameters
    ----------
    model, adata, task
        Who is asked, about what, and what.
    room
        Tokens kept for the answer.
    known
        Further fields that prompts will be given, e.g. ``question``.
    n_prompts
        Wordings of each question.
    """

    def __init__(
        self,
        model: LanguageModel,
        adata: ad.AnnData,
        task: str,
        *,
        room: int,
        known: frozenset[str] = frozenset(),
        n_prompts: int = 1,
        expression_layer: str | None = None,
        use_raw: bool | None = None,
        gene_column: str | None = None,
        n_genes: int | None = None,
        organism: str | None = None,
        metadata: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        prompts: str | None = None,
    ):
        self.model, self.adata, self.task, self.told = model, adata, task, Told()
        card = model.card
        options: dict[str, Any] = dict(layer=expression_layer, use_raw=use_raw, gene_column=gene_column)
        most = card.n_genes if card and n_genes is None else n_genes
        self.reader = CellReader(adata, card.genes if card else None, n_genes=most, **options)
        columns, constants = texts_of(adata.obs, metadata or {}, fields or {})
        if "organism" not in columns:
            named = organism or constants.get("organism")
            found = organism_of(adata, named, card.values if card else {}, self.reader.report)
            columns, constants = _with(columns, constants, "organism", found)
        self.columns, self.constants = columns, constants
        self.prompts = prompts or (card.prompts if card else "c2s_jax")
        given = frozenset(columns) | frozenset(constants)
        self.templates = choose_templates(task, self.prompts, given | known, given | known, n_prompts)
        if len(self.templates) < n_prompts:
            self.reader.report.append(f"asked in {len(self.templates)} wordings, all there are, and not {n_prompts}")
        self.leave(room)

    def leave(self, room: int) -> None:
        """Keep so many tokens for the answer."""
        self.limit = self.model.limit(room)
        self.askers = [Asker(self.formatter, t, self.limit, self.model.longest_piece) for t in self.templates]

    @property
    def formatter(self) -> Any:
        """Writes prompts of the reader's genes."""
        return self.model.formatter(self.reader.vocabulary)

    @property
    def template(self) -> Template:
        """The first wording."""
        return self.templates[0]

    def filled(self, block: Block) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
        """Rows of the cells of a block that express a gene of the model, and their genes as a ragged array."""
        rows = np.flatnonzero(np.diff(block.indptr))
        if len(rows) < len(block):
            empty = np.flatnonzero(np.diff(block.indptr) == 0)
            self.told.n_empty += len(empty)
            names = self.adata.obs_names
            self.told.empty += [str(names[block.start + i]) for i in empty[: 3 - len(self.told.empty)]]
        return rows, *take_rows(block.genes, block.indptr, rows)

    def fields(self, rows: NDArray[np.int64], wanted: frozenset[str]) -> dict[str, Texts]:
        """Texts of some cells, by field."""
        out = shared({name: text for name, text in self.constants.items() if name in wanted}, len(rows))
        return out | {name: column.texts(rows) for name, column in self.columns.items() if name in wanted}

    def write(
        self, rows: NDArray[np.int64], genes: NDArray[np.int32], indptr: NDArray[np.int64], **options: Any
    ) -> list[NDArray[np.int32]]:
        """Tokens of ``prompts_of`` cells; what is cut is told by ``warn``."""
        found = self.prompts_of(rows, genes, indptr, **options)
        self.told.add(found)
        return found.tokens

    def prompts_of(
        self,
        rows: NDArray[np.int64],
        genes: NDArray[np.int32],
        indptr: NDArray[np.int64],
        *,
        lists: NDArray[np.int64] | None = None,
        wording: int = 0,
        n_genes: int | None = None,
        texts: Mapping[str, Texts] | None = None,
    ) -> Prompts:
        """Prompts about cells.

        Parameters
        ----------
        rows
            Cells of ``adata`` whose fields are told, [N].
        genes, indptr, lists
            Gene lists, see ``Asker``.
        wording
            Number of the template.
        texts
            Further fields.
        """
        asker = self.askers[wording]
        told = {**self.fields(rows, asker.fields), **(texts or {})}
        return asker(told, genes, indptr, lists=lists, n_genes=n_genes)

    def warn(self) -> list[str]:
        """Say what was cut or left out, once; returns that and what was assumed."""
        told = self.told.sentences(self.model.context)
        for sentence in told:
            warnings.warn(sentence, UserWarning, stacklevel=4)
        return [*self.reader.report, *told]


def choose_task(model: LanguageModel, *tasks: str) -> str:
    """The first of some tasks that a model was trained on, else the first, with a warning."""
    trained = [task for task in tasks if model.card is None or task in model.card.tasks]
    if not trained:
        warn_untrained(model, tasks[0])
    return (trained or tasks)[0]


def warn_untrained(model: LanguageModel, task: str) -> None:
    """Warn if a model was not trained on a task."""
    if model.card is not None and task not in model.card.tasks:
        warnings.warn(
            f"this model was not trained on {task} (it was on {', '.join(model.card.tasks)}): its answers are guesses",
            UserWarning,
            stacklevel=4,
        )


def response_texts(template: Template, values: list[str]) -> list[str]:
    """The answers of a template, the space before them included; ``values`` fill its only text field."""
    (field,) = TASKS[template.task].fields
    return [f" {template.response}".replace(f"{{{field}}}", value) for value in values]


def empty_lists(n: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Gene lists of N prompts that show no cell."""
    return np.zeros(0, np.int32), offsets(np.zeros(n, np.int64))


def _with(
    columns: dict[str, Column], constants: dict[str, str], name: str, found: str | Column | None
) -> tuple[dict[str, Column], dict[str, str]]:
    if isinstance(found, Column):
        return columns | {name: found}, {k: v for k, v in constants.items() if k != name}
    return columns, constants | ({name: found} if found else {})
