"""The examples of one task: example number i is a function of the corpus, the settings, the seed and i."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.cache import LastFew
from c2s_jax.data.contexts import CONTEXTS, Known, MissingData
from c2s_jax.data.permute import below, keys, permuted
from c2s_jax.data.ragged import offsets, places, row_numbers
from c2s_jax.data.requests import Draft
from c2s_jax.data.settings import Choice, MixtureTask
from c2s_jax.tasks import TASKS, Template, load_templates
from c2s_jax.tasks.rendering import GENE_LISTS, MULTI_CELL

CYCLE = 1 << 12  # examples in which every data set has its exact share of a task, where there is a temperature
_NUMBERED = {"num_genes", "num_cells", "interactions", *GENE_LISTS, MULTI_CELL}  # every example has them


@dataclasses.dataclass(frozen=True)
class Draw:
    """N examples of one task, before their genes are read.

    Attributes
    ----------
    draft
        Templates, texts and the structure of the gene lists; without ``num_genes`` and ``interactions``.
    lists
        Records of the gene lists, int64 [L].
    key
        Of every gene list, uint64 [L].
    most
        Most genes of every gene list, int64 [L].
    """

    draft: Draft
    lists: NDArray[np.int64]
    key: NDArray[np.uint64]
    most: NDArray[np.int64]


class TaskStream:
    """Endless examples of one task.

    Parameters
    ----------
    settings
        How the task is asked.
    known
        The split.
    number
        Of the task in its mixture.
    seed
        Which stream.

    Raises
    ------
    MissingData
        If the split has nothing to ask about; says what is missing and how to add it.
    """

    def __init__(self, settings: MixtureTask, known: Known, *, number: int, seed: int):
        task = TASKS[settings.task]
        self.settings, self._seed, self._number = settings, seed, number
        self.templates = _templates(settings)
        self.context = CONTEXTS[task.context](known, settings)
        usable = self.context.usable()
        if not usable.any():
            raise MissingData(f"mixture, {settings.task}: {self.context.lacks}, or drop the task")
        usable = self._with_fields(usable, task.fields, known.split)
        self._choices = _TemplateChoice(self.templates, self.context.has, usable)
        self._units = _Units(np.flatnonzero(usable), self.context.datasets(), settings.temperature, self._permutation)
        if settings.interactions and not known.corpus.interactions:
            raise MissingData(
                f"mixture, {settings.task}: interactions=True, but the corpus has none; give interactions when "
                "building it (--interactions), or set interactions=False"
            )

    @property
    def _permutation(self) -> int:
        return self._seed * 1009 + self._number

    def __len__(self) -> int:
        """Units that can be asked about: the examples of an epoch, at temperature 1."""
        return len(self._units.units)

    def draw(self, numbers: NDArray[np.int64]) -> Draw:
        """The examples with these numbers."""
        key = keys(self._seed, self._number, numbers)
        unit = self._units.at(numbers)
        chosen = self.context.choose(unit, key)
        template = self._choices.draw(unit, key)
        used = {field for number in np.unique(template).tolist() for field in self.templates[number].fields}
        texts = {field: self.context.texts(field, chosen, key) for field in sorted(used - _NUMBERED | {"num_cells"})}
        counts = np.diff(chosen.indptr)
        lists = keys(key[row_numbers(counts)], places(counts))
        draft = Draft(self.templates, template, texts, chosen.indptr, chosen.cells)
        return Draw(draft, chosen.lists, lists, np.repeat(self.settings.n_genes(key), counts))

    def anchors(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cell of each of these examples whose fields are told, int64 [N]."""
        return self.context.choose(self._units.at(numbers), keys(self._seed, self._number, numbers)).anchor

    def _with_fields(self, usable: NDArray[np.bool_], fields: Sequence[str], split: str) -> NDArray[np.bool_]:
        has = {f: self.context.has(f) for t in self.templates for f in t.fields - _NUMBERED} | {
            f: self.context.has(f) for f in fields
        }
        for field in fields:
            usable = usable & has[field]
        asked = np.zeros_like(usable)
        for template in self.templates:
            found = usable.copy()
            for field in template.fields - _NUMBERED:
                found &= has[field]
            asked |= found
        if not asked.any():
            needed = sorted(set.intersection(*(set(t.fields - _NUMBERED) for t in self.templates)) | set(fields))
            absent = [field for field in needed if not has[field].any()] or needed
            raise MissingData(
                f"mixture, {self.settings.task}: no cell of the corpus' split {split!r} has {' and '.join(absent)}; "
                f"{'give data sets abstracts' if absent == ['abstract'] else 'map an obs column to it'} when building "
                "the corpus, or drop the task"
            )
        return asked


def _templates(settings: MixtureTask) -> tuple[Template, ...]:
    loaded = load_templates(settings.task, settings.prompts)
    chosen = tuple(t for t in loaded if ("interactions" in t.fields) == settings.interactions)
    if not chosen:
        without = "no template" if settings.interactions else "every template"
        raise ValueError(
            f"mixture, {settings.task}: interactions={settings.interactions}, but {without} of prompts="
            f"{settings.prompts!r} uses {{interactions}}"
        )
    return chosen


class _TemplateChoice:
    """Templates at random among those whose fields a unit has."""

    def __init__(
        self, templates: Sequence[Template], has: Callable[[str], NDArray[np.bool_]], usable: NDArray[np.bool_]
    ):
        fields = sorted({f for t in templates for f in t.fields} - _NUMBERED)
        columns = {field: has(field) for field in fields}
        self._columns = [column for column in columns.values() if not column[usable].all()]
        partial = [field for field, column in columns.items() if not column[usable].all()]
        needs = np.array([sum(1 << i for i, f in enumerate(partial) if f in t.fields) for t in templates])
        sets = np.arange(1 << len(partial))
        allowed = (needs & ~sets[:, None]) == 0  # [set of fields, template]
        self._counts = allowed.sum(1)
        self._table = np.argsort(~allowed, axis=1, kind="stable")

    def draw(self, unit: NDArray[np.int64], key: NDArray[np.uint64]) -> NDArray[np.int64]:
        there = np.zeros(len(unit), np.int64)
        for bit, column in enumerate(self._columns):
            there |= column[unit].astype(np.int64) << bit
        return self._table[there, below(self._counts[there], key, Choice.TEMPLATE)]


class _Units:
    """The order in which units come: a keyed permutation an epoch, of all or, with a temperature, of each data set.

    With a temperature, examples are dealt in cycles, in which every data set has a fixed number of places.
    """

    def __init__(self, units: NDArray[np.int64], datasets: NDArray, temperature: float, key: int):
        self.units = units.astype(np.int32) if units[-1] < 1 << 31 else units
        self._key, self._shared = key, temperature == 1
        if self._shared:
            return
        found, dataset = np.unique(datasets[units], return_inverse=True)
        self.units = self.units[np.argsort(dataset, kind="stable")]
        self._sizes = np.bincount(dataset)
        self._starts = offsets(self._sizes)[:-1]
        self._dealt = deal(self._sizes ** (1 / temperature), max(CYCLE, 64 * len(found)))
        self._cycle = LastFew(self._deal_cycle, keep=4)

    def at(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The units of some examples."""
        if self._shared:
            return self.units[permuted(numbers, len(self.units), self._key)].astype(np.int64)
        cycle, place = np.divmod(numbers, self._dealt.sum())
        dataset, turn = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
        for number in np.unique(cycle).tolist():
            here = np.flatnonzero(cycle == number)
            dealt = self._cycle(number)
            dataset[here], turn[here] = dealt[0][place[here]], dealt[1][place[here]]
        turn += cycle * self._dealt[dataset]
        inside = permuted(turn, self._sizes[dataset], keys(self._key, dataset))
        return self.units[self._starts[dataset] + inside].astype(np.int64)

    def _deal_cycle(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Data set of each place of a cycle, and how many places it had before in the cycle."""
        total = int(self._dealt.sum())
        slot = permuted(number * total + np.arange(total), total, self._key)
        dataset = np.repeat(np.arange(len(self._dealt)), self._dealt)[slot]
        turn = np.empty(total, np.int64)
        turn[np.argsort(dataset, kind="stable")] = places(self._dealt)
        return dataset, turn


def deal(weights: NDArray, slots: int) -> NDArray[np.int64]:
    """Slots for each weight, in proportion and at least one each; they sum up to ``slots``."""
    share = weights / weights.sum() * (slots - len(weights))
    out = np.floor(share).astype(np.int64)
    out[np.argsort(out - share, kind="stable")[: slots - len(weights) - out.sum()]] += 1
    return out + 1
