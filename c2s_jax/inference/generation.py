"""New cells: of a type, or real ones as they would be under a perturbation."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from c2s_jax.cells import GeneVocabulary, RankExpression, fit_rank_expression, repair_sentence
from c2s_jax.cells.genes import gene_symbols
from c2s_jax.cells.source import select_source
from c2s_jax.data.ragged import offsets
from c2s_jax.generation import Sampling
from c2s_jax.inference.answer_size import answer_tokens, genes_of_answer
from c2s_jax.inference.inquiry import Inquiry, choose_task, empty_lists
from c2s_jax.inference.language_model import BATCH_SIZE, LanguageModel
from c2s_jax.inference.organisms import organism_of
from c2s_jax.inference.prompting import (
    Asker,
    Prompts,
    asked_fields,
    check_fields,
    choose_templates,
    constant,
    listed,
    shared,
)
from c2s_jax.inference.provenance import record
from c2s_jax.inference.reading import LAYER
from c2s_jax.inference.streaming import Meter, cell_bar, over_cells
from c2s_jax.tasks import TASKS, Template

GENERATE = "cell_type_conditioned_generation"
RESPOND, PERTURBED = "perturbation_response", "perturbed_cell_generation"


def generate(
    model: LanguageModel,
    cell_type: str | Sequence[str] | Mapping[str, int],
    n: int,
    *,
    n_genes: int | None,
    temperature: float,
    top_p: float,
    seed: int,
    organism: str | None,
    fields: Mapping[str, str] | None,
    prompts: str | None,
    like: ad.AnnData | None,
    dataset: str | None,
    constrain: bool,
    drafts: bool,
    progress: bool,
) -> ad.AnnData:
    """See ``Model.generate``."""
    wanted = _wanted(cell_type, n)
    names, counts = list(wanted), list(wanted.values())
    _warn_unmet(model, "cell_type", names)
    choose_task(model, GENERATE)
    vocabulary, line = _genes_and_line(model, like, dataset)
    report: list[str] = []
    template, told = _wording(model, fields, organism, prompts, like, report)
    formatter = model.formatter(vocabulary)

    def ask(n_genes: int, room: int = 0) -> list[NDArray[np.int32]]:
        asker = Asker(formatter, template, model.limit(room), model.longest_piece)
        texts = shared(told, len(names)) | {"cell_type": listed(names)}
        return asker(texts, *empty_lists(0), lists=np.zeros(len(names), np.int64), n_genes=n_genes).tokens

    n_genes = genes_of_answer(model, n_genes, vocabulary, ask, report)
    room = int(answer_tokens(model, n_genes, vocabulary))
    sampling = Sampling(temperature=temperature, top_p=top_p)
    how = _writing(model, vocabulary, n_genes, constrain, drafts)
    answers = _samples(model, ask(n_genes, room), counts, room, progress, sampling=sampling, seed=seed, **how)
    types = np.repeat(names, counts).tolist()
    obs = pd.DataFrame({"cell_type": pd.Categorical(types)}, index=[f"c2s_{i}" for i in range(len(types))])
    for name, text in told.items():
        obs[name] = pd.Categorical([text] * len(obs))
    out = _cells(answers, obs, vocabulary, line, n_genes)
    settings = dict(n_genes=n_genes, temperature=temperature, top_p=top_p, seed=seed, fields=told, dataset=dataset)
    settings |= dict(constrain=constrain, drafts=drafts)
    asked = [template.model_input]
    record(out, "generate", model, prompts=asked, settings=settings, report=report, rank_expression=line.to_dict())
    return out


def _wording(
    model: LanguageModel,
    fields: Mapping[str, str] | None,
    organism: str | None,
    prompts: str | None,
    like: ad.AnnData | None,
    report: list[str],
) -> tuple[Template, dict[str, str]]:
    """The template for cells of a type, and what it tells besides the type; warns of what it has no place for."""
    card, given = model.card, dict(fields or {})
    check_fields(given)
    if "cell_type" in given:
        raise ValueError("fields names cell_type, which is an argument of its own")
    if organism:
        given["organism"] = organism
    cells = like if like is not None else ad.AnnData()
    named = organism_of(cells, given.get("organism"), card.values if card else {}, report)
    known = given | ({"organism": named} if isinstance(named, str) else {})
    source = prompts or (card.prompts if card else "c2s_jax")
    template = choose_templates(GENERATE, source, frozenset(known) | {"cell_type"}, frozenset(known))[0]
    told = {name: text for name, text in known.items() if name in asked_fields(template)}
    if untold := sorted(given.keys() - told.keys()):
        warnings.warn(
            f"the prompt has no place for {', '.join(untold)}: cells are made without", UserWarning, stacklevel=4
        )
    return template, told


def perturb(
    model: LanguageModel,
    adata: ad.AnnData,
    perturbation: str,
    *,
    temperature: float,
    top_p: float,
    seed: int,
    dataset: str | None,
    constrain: bool,
    drafts: bool,
    resume: Any,
    progress: bool,
    **reading: Any,
) -> ad.AnnData:
    """See ``Model.perturb``."""
    if not perturbation.strip():
        raise ValueError("perturbation must name what is done to the cells")
    task = choose_task(model, RESPOND, PERTURBED)
    columns = dict(reading.pop("metadata", None) or {})
    if task == PERTURBED and "cell_type" not in columns and "cell_type" in adata.obs:
        columns["cell_type"] = "cell_type"
    vocabulary, line = _genes_and_line(model, adata, dataset, reading)
    known = frozenset(("perturbation",))
    inquiry = _PerturbedCells(model, adata, task, room=0, known=known, metadata=columns, **reading)
    inquiry.perturbation = perturbation.strip()
    _warn_unmet(model, "perturbation", [inquiry.perturbation])
    _warn_unmet(model, "cell_type", inquiry.told_values("cell_type"))
    n_genes = inquiry.size_answer(reading.get("n_genes"), vocabulary)
    room = int(answer_tokens(model, n_genes, vocabulary))
    inquiry.leave(room)
    sampling = Sampling(temperature=temperature, top_p=top_p)
    how = _writing(model, vocabulary, n_genes, constrain, drafts)

    def compute(rows: NDArray, asked: list[list[NDArray]], advance: Callable[[int], None]) -> dict[str, NDArray]:
        options = dict(seed=seed, prompt_ids=rows, progress=advance, **how)
        samples = model.sample(asked[0], room, sampling, **options)
        return {"texts": np.array(samples.texts(model.tokenizer.decode), dtype=np.str_)}

    settings = dict(perturbation=perturbation, temperature=temperature, top_p=top_p, seed=seed, n_genes=n_genes)
    settings["constrain"] = constrain
    texts = [""] * adata.n_obs
    for block, rows, found in over_cells(
        inquiry, compute, what="perturb", settings=settings, resume=resume, progress=progress
    ):
        for row, text in zip((block.start + rows).tolist(), found.get("texts", ())):
            texts[row] = str(text)
    obs = adata.obs.copy()
    obs["perturbation"] = pd.Categorical([perturbation] * len(obs))
    out = _cells(texts, obs, vocabulary, line, n_genes)
    prompts = [inquiry.template.model_input]
    record(
        out, "perturb", model, prompts=prompts, settings=reading | settings, report=inquiry.warn(),
        rank_expression=line.to_dict(),
    )  # fmt: skip
    return out


class _PerturbedCells(Inquiry):
    """Prompts that name a perturbation; those of ``perturbed_cell_generation`` show no cell."""

    perturbation: str
    answer_genes: int

    def size_answer(self, n_genes: int | None, vocabulary: GeneVocabulary) -> int:
        """Genes of each answer, which prompts may tell."""
        kinds = self._kinds()

        def ask(n_genes: int) -> list[NDArray[np.int32]]:
            self.answer_genes = n_genes
            return self.prompts_of(kinds, *empty_lists(len(kinds))).tokens

        lists = 1 if self.task == PERTURBED else 2
        self.answer_genes = genes_of_answer(self.model, n_genes, vocabulary, ask, self.reader.report, lists=lists)
        return self.answer_genes

    def _kinds(self) -> NDArray[np.int64]:
        """One cell of each combination of what prompts tell."""
        told = [column.codes for name, column in self.columns.items() if name in self.askers[0].fields]
        codes = np.array([np.zeros(self.adata.n_obs, np.int64), *told])
        return np.unique(codes, axis=1, return_index=True)[1]

    def told_values(self, field: str) -> Sequence[str]:
        """What prompts tell by a field."""
        if field not in self.askers[0].fields:
            return ()
        return self.columns[field].values if field in self.columns else (self.constants[field],)

    def prompts_of(self, rows: NDArray, genes: NDArray, indptr: NDArray, **options: Any) -> Prompts:
        n = len(rows)
        options["texts"] = {"perturbation": constant(self.perturbation, n)}
        if self.task == PERTURBED:
            genes, indptr = empty_lists(0)
            options |= {"lists": np.zeros(n, np.int64), "n_genes": self.answer_genes}
        return super().prompts_of(rows, genes, indptr, **options)


def _cells(
    texts: Sequence[str], obs: pd.DataFrame, vocabulary: GeneVocabulary, line: RankExpression, n_genes: int
) -> ad.AnnData:
    """Generated sentences as cells; what had to be repaired stands in ``obs``."""
    parse = TASKS[GENERATE].parse
    repaired = [repair_sentence(parse(text), vocabulary) for text in texts]
    lists = [vocabulary.ids(genes[:n_genes]) for genes, _ in repaired]
    reports = [report for _, report in repaired]
    obs["c2s_n_genes"] = [len(genes) for genes in lists]
    obs["c2s_n_unknown"] = [report.n_unknown for report in reports]
    obs["c2s_n_repeated"] = [report.n_duplicate for report in reports]
    matrix = line.reconstruct(lists, vocabulary)
    out = ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=list(vocabulary.names)))
    out.uns["log1p"] = {"base": 10.0}
    return out


def _genes_and_line(
    model: LanguageModel, like: ad.AnnData | None, dataset: str | None, reading: Mapping[str, Any] | None = None
) -> tuple[GeneVocabulary, RankExpression]:
    """The model's genes and rank→expression line; without a card, those of cells at hand."""
    if model.card is not None:
        return model.card.genes, model.card.expression(dataset)
    if like is None:
        raise ValueError(
            "this model brings no genes and no rank→expression line (no c2s.json beside its weights): give cells to "
            "take them from, like=adata"
        )
    source: dict[str, Any] = {
        name: (reading or {}).get(name) for name in ("expression_layer", "use_raw", "gene_column")
    }
    source["layer"] = source.pop("expression_layer")
    var = select_source(like, source["layer"], source["use_raw"], argument=LAYER)[2]
    names = [name.upper() for name in gene_symbols(var, source["gene_column"], [])]
    line = fit_rank_expression(like, max_cells=2_000, duplicates="sum", empty_cells="drop", **source)
    return GeneVocabulary(list(dict.fromkeys(names))), line


def _writing(
    model: LanguageModel, vocabulary: GeneVocabulary, n_genes: int, constrain: bool, drafts: bool
) -> dict[str, Any]:
    """The sampler's grammar and drafts; answers do not depend on the latter."""
    if not (constrain or drafts):
        return {}
    grammar = model.grammar(vocabulary, n_genes)
    guesses = model.drafts(vocabulary, grammar) if drafts else None
    return {"grammar": grammar if constrain else None, "drafts": guesses}


def _samples(
    model: LanguageModel,
    prompts: Sequence[NDArray[np.int32]],
    counts: Sequence[int],
    room: int,
    progress: bool,
    **options: Any,
) -> list[str]:
    """So many answers to each prompt, one prompt's after the other's; several at once share what the prompt costs."""
    together = min(max(counts), BATCH_SIZE)
    repeats = [-(-count // together) for count in counts]
    repeated = [prompt for prompt, times in zip(prompts, repeats) for _ in range(times)]
    with cell_bar(len(repeated) * together, "generate", progress) as bar:
        meter = Meter(bar)
        advance = lambda done: meter.advance(done * together)  # noqa: E731
        samples = model.sample(repeated, room, samples_per_prompt=together, progress=advance, **options)
    texts = samples.texts(model.tokenizer.decode)
    starts = offsets(np.array(repeats)) * together
    return [text for start, count in zip(starts.tolist(), counts) for text in texts[start : start + count]]


def _wanted(cell_type: str | Sequence[str] | Mapping[str, int], n: int) -> dict[str, int]:
    """Cells to make by type."""
    if isinstance(cell_type, Mapping):
        wanted = {str(name).strip(): int(count) for name, count in cell_type.items()}
    else:
        names = [cell_type] if isinstance(cell_type, str) else list(cell_type)
        wanted = {str(name).strip(): n for name in names}
    if not wanted or "" in wanted:
        raise ValueError("cell_type must name at least one type, and none may be empty")
    if min(wanted.values()) < 1:
        raise ValueError(f"at least one cell of each type must be asked for, not {min(wanted.values())}")
    return wanted


def _warn_unmet(model: LanguageModel, field: str, names: Sequence[str]) -> None:
    """Warn of names that a field never had in training, if the model says which it had."""
    known = model.card.values.get(field, ()) if model.card else ()
    for name in names if known else ():
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.4) or list(known[:5])
            warnings.warn(
                f"the model met no {name!r} in training; nearest: {', '.join(near)}", UserWarning, stacklevel=4
            )
