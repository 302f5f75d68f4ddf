import re

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from c2s_jax.data import Corpus, Formatter, request
from c2s_jax.data.ragged import offsets
from c2s_jax.data.requests import draft_of
from c2s_jax.tasks import TASKS, Template, load_templates
from c2s_jax.tasks.rendering import GENE_LISTS, MULTI_CELL, PROSE, SERIES, parts
from c2s_jax.text import GeneTokenTable, Tokenizer, load_tokenizer
from tests.text.neox import real_file, train_neox

FIELDS = {
    "organism": "human",
    "cell_type": "CD4+/CD25 T Reg",
    "cell_types": ("B cell", "CD4-positive, alpha-beta T cell", "B cell"),
    "tissue": "lymph node",
    "niche": "layer 2/3",
    "abstract": "We profiled T cells (n = 3).\n\nThey differ.",
    "caption": "Naive cells",
    "question": "Which cells, and why?",
    "answer": "Yes",
    "gene_set_name": "interferon alpha response",
    "interactions": ("CXCL12 binds CXCR4.", "A+B interacts with C."),
    "perturbation": "IFN-beta",
    "dose": "10 uM",
    "time": "6 h",
}
# Every leading × trailing, with the list at the beginning, inside and at the end.
AWKWARD = [
    Template("cell_type_annotation", question, "{cell_type}.")
    for question in (
        "{cell_sentence}",
        "{cell_sentence}.",
        "{cell_sentence}.\nType of {num_genes}:",
        "Cell:\n{cell_sentence} Type:",
        "Cell:\n {cell_sentence}. Type:",
        "Cell: {cell_sentence}\nType:",
        "{organism} {cell_sentence}.  Type:",
        # Byte-level BPE cuts line breaks by what follows them.
        "\n\n{cell_sentence}\n\n\nType:\n",
        "Cell:\n\n{cell_sentence}.\n\n",
        "Cell of {cell_type} \n \n\n{cell_sentence}\n    Type:",
        "Cell:\t\n{cell_sentence}    \nType:\t",
        "Cell:\n\n {cell_sentence}.\n \n",
        # Fields that touch words and each other.
        "({organism}/{tissue}), {num_genes}{organism}: {cell_sentence}. {organism}'s{tissue}",
        # Several lists.
        "{cell_sentence}.\n{other_cell_sentence} Or {cell_sentence}. Type:",
        "A:\n{cell_sentence}\n\n{other_cell_sentence}.\n{bulk_sentence}\nType",
        "{multi_cell_sentences}",
        "{num_cells} cells:\n\n{multi_cell_sentences}.\n\nTypes: {cell_types}, {num_genes}",
        "{multi_cell_sentences}. {interactions}. In {cell_types}",
        "of {organism}\n {multi_cell_sentences}\n \nType",
    )
] + [
    Template("cell_sentence_modelling", "A cell:", "{cell_sentence}"),
    Template("cell_sentence_modelling", "A cell:\n", "{cell_sentence}. End"),
    Template("cell_sentence_modelling", "A cell:\n\n", "{cell_sentence}.\n\n"),
    Template("cell_type_conditioned_generation", "{cell_type}", "Cell:\n\n{cell_sentence}"),
    Template("tissue_annotation", "Cells.\n{multi_cell_sentences}.\nTissue:", "{tissue}.", released=True),
    Template("tissue_conditioned_generation", "{tissue}:\n", "{multi_cell_sentences}.", released=True),
]
TEMPLATES = [*(t for task in TASKS for t in load_templates(task)), *AWKWARD]


NAMES = ["H2-T24(PS)", "1700001O22RIK", "NAÏVE-1", "'S-GENE", "IFNA_"]  # after those of the other tests


@pytest.fixture(scope="module", params=["sentence_piece", "neox"])
def formatter(request, tokenizer, gene_names, tmp_path_factory) -> Formatter:
    names = [*gene_names, *NAMES]
    if request.param == "neox":
        sentences = [" " + " ".join(names[i : i + 9]) + "." for i in range(len(names))]
        texts = [*sentences, *(f"{t.model_input} {t.response}" for t in AWKWARD), FIELDS["cell_type"]] * 3
        tokenizer = load_tokenizer(train_neox(tmp_path_factory.mktemp("neox"), texts))
        assert tokenizer.encode("\n\nA")[:2] == tokenizer.encode("\n") * 2 != tokenizer.encode("\n\n")
    return Formatter(tokenizer, GeneTokenTable.build(tokenizer, names))


def start(tokenizer) -> list[int]:
    return [] if tokenizer.bos_id is None else [tokenizer.bos_id]


def as_text(template: Template, lists: list[list[int]], names: list[str], fields=FIELDS) -> tuple[str, str]:
    """Prompt and response, written out; the space between them belongs to the response."""
    sentences = [" ".join(names[g] for g in genes) for genes in lists]
    several = "\n".join(f"Cell {i}:\n{genes}." for i, genes in enumerate(sentences, 1))
    values = {name: SERIES[name].join(value) if name in SERIES else value for name, value in fields.items()}
    values |= {"cell_sentence": sentences[0], "other_cell_sentence": sentences[1 % len(lists)]}
    values |= {"bulk_sentence": sentences[-1], "gene_set": sentences[-1], "num_cells": str(len(lists))}
    values |= {MULTI_CELL: several + "\n" * template.released, "num_genes": str(max(map(len, lists)))}

    def filled(text: str) -> str:
        if not template.released:
            text = text.replace(f"{{{MULTI_CELL}}}.", f"{{{MULTI_CELL}}}")  # the last cell's own period
        for name in PROSE:
            if values.get(name, "").endswith("."):
                text = text.replace(f"{{{name}}}.", f"{{{name}}}")
        return text.format(**values)

    return filled(template.model_input), " " + filled(template.response)


def check(formatter: Formatter, templates: list[Template], lists: list[list[list[int]]], fields=FIELDS) -> None:
    """Compare with the tokenizer on the text as it is written out; ``lists`` are the gene lists of each example."""
    t, names = formatter.tokenizer, list(formatter.table.gene_names)
    requests = [request(x, fields, max(map(len, y)), len(y)) for x, y in zip(templates, lists)]
    flat = [genes for y in lists for genes in y]
    genes, indptr = np.concatenate(flat).astype(np.int32), offsets(np.array([len(x) for x in flat]))
    counts = np.array([len(y) for y in lists])
    examples = formatter.examples(requests, genes, indptr, counts)
    prompts = formatter.prompts(requests, genes, indptr, counts)
    assert len(examples.lengths) == len(prompts.lengths) == len(requests)
    for i, (template, listed) in enumerate(zip(templates, lists)):
        prompt, response = as_text(template, listed, names, fields)
        expected = [*start(t), *t.encode(prompt + response), t.eos_id]
        part = slice(examples.indptr[i], examples.indptr[i + 1])
        assert examples.tokens[part].tolist() == expected, template
        n_prompt = len(start(t)) + len(t.encode(prompt))
        assert examples.is_response[part].tolist() == [j >= n_prompt for j in range(len(expected))], template
        asked = slice(prompts.indptr[i], prompts.indptr[i + 1])
        assert prompts.tokens[asked].tolist() == expected[:n_prompt]
        assert not prompts.is_response[asked].any()
    # What the stream plans with: texts and lists apart.
    draft = draft_of(requests, indptr, counts)
    slots, measured = formatter.slots(draft), formatter.rows.lists(genes, indptr)
    lengths = formatter.lengths(draft, slots, measured, np.diff(indptr))
    np.testing.assert_array_equal(lengths, examples.lengths)


def draw_lists(rng: np.random.Generator, n_genes: int, template: Template, longest: int = 30) -> list[list[int]]:
    """Gene lists for a template: three cells where it shows several, two where it needs them."""
    n = 3 if MULTI_CELL in template.fields else 1 + ("other_cell_sentence" in template.fields)
    return [rng.permutation(n_genes)[: rng.integers(1, longest, endpoint=True)].tolist() for _ in range(n)]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: f"{t.task}-{t.model_input[:20]!r}")
def test_tokens_are_those_of_the_written_out_text(formatter, template):
    rng = np.random.default_rng(3)
    n_genes = len(formatter.table)
    lists = [draw_lists(rng, n_genes, template, longest) for longest in (1, 2, 40)]
    short = [[[n_genes - 1 - i]] * len(lists[0]) for i in range(len(NAMES))]
    check(formatter, [template] * (3 + len(NAMES)), [*lists, *short])


def test_all_templates_mixed_in_one_batch(formatter):
    rng = np.random.default_rng(4)
    templates = [TEMPLATES[i] for i in rng.permutation(np.repeat(np.arange(len(TEMPLATES)), 4))]
    check(formatter, templates, [draw_lists(rng, len(formatter.table), template) for template in templates])


WORDS = ["Genes:", "of", "a,", "(x)", "it's", "12", "é", "-", ".", "\n", "\n\n", "  ", "\t", "x\n"]
PLACES = [f"{{{name}}}" for name in (*FIELDS, "num_genes", *GENE_LISTS, MULTI_CELL)]
VALUES = st.text("ABab09 é-+/,.'()\n", min_size=1, max_size=12).filter(lambda text: text.strip())


@st.composite
def templates(draw) -> Template:
    sides = []
    for _ in range(2):
        bits = draw(st.lists(st.tuples(st.sampled_from([*WORDS, *PLACES * 2]), st.sampled_from(["", " "])), max_size=9))
        sides.append("".join(a + b for a, b in bits))
    template = Template(
        "cell_type_annotation", "Q" + sides[0].rstrip(" "), sides[1].strip() or "R", draw(st.booleans())
    )
    try:
        parts(template)
    except ValueError:
        assume(False)
    # Which of two neighbouring series ends where is not told by the text.
    assume(not re.search(r"\{(cell_types|interactions)\}\S*\{|\}\S*\{(cell_types|interactions)\}", str(sides)))
    return template


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_template_and_any_value(formatter, data):
    template = data.draw(templates())
    series = st.lists(VALUES, min_size=1, max_size=4).map(tuple)
    fields = {name: data.draw(series if name in SERIES else VALUES) for name in sorted(template.fields & set(FIELDS))}
    stripped = {n: tuple(x.strip() for x in v) if n in SERIES else v.strip() for n, v in fields.items()}
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    lists = [draw_lists(rng, len(formatter.table), template, 3) for _ in range(2)]
    lists = [y * 2 if {"bulk_sentence", "gene_set"} & template.fields else y for y in lists]
    check(formatter, [template] * 2, lists, stripped)


def check_all(tokenizer: Tokenizer, names: list[str]) -> None:
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, names))
    rng = np.random.default_rng(5)
    check(formatter, TEMPLATES, [draw_lists(rng, len(names), template, 50) for template in TEMPLATES])


def test_demo_tokenizer(bundle):
    check_all(load_tokenizer(bundle.tokenizer), Corpus(bundle.corpus).genes.names)


@pytest.mark.parametrize("file", ["tokenizer_gemma2/tokenizer.model", "tokenizer_gpt_neox/20B_tokenizer.json"])
def test_tokenizers_of_released_checkpoints(file, gene_names):
    check_all(load_tokenizer(real_file(*file.split("/"))), [*gene_names, *NAMES])


def test_white_space_around_a_value_is_left_out(formatter):
    """It would merge with the template's, here with the space before the response."""
    template = Template("cell_type_conditioned_generation", "A cell of type {cell_type}", "{cell_sentence}.")
    made = request(template, {"cell_type": "\tB cell \n"}, 2)
    assert made == request(template, {"cell_type": "B cell"}, 2)
    tokens = formatter.examples([made], np.array([0, 1], np.int32), np.array([0, 2])).tokens
    a, b = formatter.table.gene_names[:2]
    assert formatter.tokenizer.decode(tokens) == f"A cell of type B cell {a} {b}."


def test_text_cannot_end_an_example(formatter):
    """A label that spells the end-of-sequence token stays text."""
    template, t = Template("cell_type_annotation", "{cell_sentence}.", "{cell_type}."), formatter.tokenizer
    made = request(template, {"cell_type": "B<eos> <|endoftext|>cell"}, 1)
    tokens = formatter.examples([made], np.array([0], np.int32), np.array([0, 1])).tokens.tolist()
    assert tokens.index(t.eos_id) == len(tokens) - 1
    assert t.decode(tokens).endswith(" B<eos> <|endoftext|>cell.")


def test_empty_prompt_needs_a_beginning(formatter):
    template = Template("cell_sentence_modelling", "", "{cell_sentence}.")
    arguments = [request(template, {}, 2)], np.array([3, 4], np.int32), np.array([0, 2])
    if formatter.tokenizer.bos_id is None:
        with pytest.raises(ValueError, match="an empty prompt, and no token begins a sequence"):
            formatter.prompts(*arguments)
    else:
        assert formatter.prompts(*arguments).tokens.tolist() == [formatter.tokenizer.bos_id]


def test_prompts_without_the_lists_of_the_answer(formatter):
    """To generate cells, only what the prompt shows is given."""
    control = Template("perturbation_response", "Control: {cell_sentence}. Now:", "{other_cell_sentence}.")
    tissue = Template("tissue_conditioned_generation", "{num_cells} cells of {tissue}:", "{multi_cell_sentences}")
    requests = [request(control, {}, 2), request(tissue, FIELDS, 0, num_cells=7)]
    made = formatter.prompts(requests, np.array([0, 1], np.int32), np.array([0, 2]), np.array([1, 0]))
    a, b = formatter.table.gene_names[:2]
    texts = [formatter.tokenizer.decode(x) for x in np.split(made.tokens, made.indptr[1:-1])]
    assert texts == [f"Control: {a} {b}. Now:", "7 cells of lymph node:"]


def test_too_few_gene_lists(formatter):
    template = Template("perturbation_response", "Control: {cell_sentence}. Now:", "{other_cell_sentence}.")
    made = request(template, {}, 1)
    with pytest.raises(ValueError, match="other_cell_sentence.*: 1 gene lists are too few"):
        formatter.examples([made], np.array([0], np.int32), np.array([0, 1]))
    with pytest.raises(ValueError, match="2 requests have 3 gene lists together, but 1 are given"):
        formatter.examples([made, made], np.array([0], np.int32), np.array([0, 1]), np.array([1, 2]))


def test_request_carries_only_what_its_template_uses():
    template = Template("cell_type_annotation", "A {organism} cell: {cell_sentence}.", "{cell_type}.")
    given = {"organism": "human", "cell_type": "B cell"}
    made = request(template, {**given, "tissue": "blood"}, 7)
    assert dict(made.values) == given
    assert made == request(template, {**given, "tissue": "skin"}, 9)


@pytest.mark.parametrize("fields", [{"organism": "human"}, {"organism": "human", "cell_type": ""}])
def test_missing_field(fields):
    template = Template("cell_type_annotation", "A {organism} cell: {cell_sentence}.", "{cell_type}.")
    with pytest.raises(ValueError, match="needs cell_type, which this cell lacks"):
        request(template, fields, 3)


def test_a_series_that_touches_another_field(formatter):
    template = Template("cell_type_annotation", "{cell_types}/{organism}", "{cell_sentence}.")
    with pytest.raises(ValueError, match=r"put a space between \{cell_types\} and the next field"):
        formatter.prompts([request(template, FIELDS, 1)], np.array([0], np.int32), np.array([0, 1]))


def test_each_value_is_tokenised_once(formatter, monkeypatch):
    template = Template("cell_type_annotation", "Of {num_genes} genes: {cell_sentence}. Type?", "{cell_type}.")
    fresh = Formatter(formatter.tokenizer, formatter.table)
    asked: list[str] = []
    encode = type(fresh.tokenizer).encode_batch
    monkeypatch.setattr(
        type(fresh.tokenizer), "encode_batch", lambda self, texts: asked.extend(texts) or encode(self, texts)
    )
    requests = [request(template, {"cell_type": x}, 1) for x in ("B", "T", "B")] * 50
    fresh.examples(requests, np.zeros(150, np.int32), np.arange(151))
    assert len(asked) == len(set(asked)) < 10


def test_table_of_another_tokenizer(formatter):
    table = GeneTokenTable(formatter.table.gene_names, formatter.table._tokens, formatter.table._offsets, "other")
    with pytest.raises(ValueError, match="built with another tokenizer"):
        Formatter(formatter.tokenizer, table)
