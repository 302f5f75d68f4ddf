import numpy as np
import pytest

from c2s_jax.data import Formatter, request
from c2s_jax.data.ragged import offsets
from c2s_jax.tasks import TASKS, Template, load_templates
from c2s_jax.text import GeneTokenTable

FIELDS = {"organism": "human", "cell_type": "CD4+/CD25 T Reg"}
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
    )
] + [
    Template("cell_sentence_modelling", "A cell:", "{cell_sentence}"),
    Template("cell_sentence_modelling", "A cell:\n", "{cell_sentence}. End"),
]
TEMPLATES = [*(t for task in TASKS for t in load_templates(task)), *AWKWARD]


def as_text(template: Template, genes: list[int], names: list[str]) -> tuple[str, str]:
    """Prompt and response, written out; the space between them belongs to the response."""
    values = {**FIELDS, "num_genes": str(len(genes)), "cell_sentence": " ".join(names[g] for g in genes)}
    return template.model_input.format(**values), " " + template.response.format(**values)


def check(formatter: Formatter, names: list[str], templates: list[Template], lists: list[list[int]]) -> None:
    t = formatter.tokenizer
    requests = [request(x, FIELDS, len(genes)) for x, genes in zip(templates, lists)]
    genes, indptr = np.concatenate(lists).astype(np.int32), offsets(np.array([len(x) for x in lists]))
    examples, prompts = formatter.examples(requests, genes, indptr), formatter.prompts(requests, genes, indptr)
    assert len(examples.lengths) == len(prompts.lengths) == len(requests)
    for i, (template, listed) in enumerate(zip(templates, lists)):
        prompt, response = as_text(template, listed, names)
        expected = [t.bos_id, *t.encode(prompt + response), t.eos_id]
        part = slice(examples.indptr[i], examples.indptr[i + 1])
        assert examples.tokens[part].tolist() == expected, template
        n_prompt = 1 + len(t.encode(prompt))
        assert examples.is_response[part].tolist() == [j >= n_prompt for j in range(len(expected))], template
        asked = slice(prompts.indptr[i], prompts.indptr[i + 1])
        assert prompts.tokens[asked].tolist() == expected[:n_prompt]
        assert not prompts.is_response[asked].any()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: f"{t.task}-{t.model_input[:20]!r}")
def test_tokens_are_those_of_the_written_out_text(formatter, gene_names, template):
    rng = np.random.default_rng(3)
    lists = [rng.permutation(len(gene_names))[:n].tolist() for n in (1, 2, 40)]
    check(formatter, gene_names, [template] * 3, lists)


def test_all_templates_mixed_in_one_batch(formatter, gene_names):
    rng = np.random.default_rng(4)
    templates = [TEMPLATES[i] for i in rng.permutation(np.repeat(np.arange(len(TEMPLATES)), 4))]
    lists = [rng.permutation(len(gene_names))[: rng.integers(1, 30)].tolist() for _ in templates]
    check(formatter, gene_names, templates, lists)


def test_demo_tokenizer(bundle):
    from c2s_jax.data import Corpus
    from c2s_jax.text import load_tokenizer

    names = Corpus(bundle.corpus).genes.names
    tokenizer = load_tokenizer(bundle.tokenizer)
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, names))
    rng = np.random.default_rng(5)
    check(formatter, names, TEMPLATES, [rng.permutation(len(names))[:50].tolist() for _ in TEMPLATES])


def test_request_carries_only_what_its_template_uses():
    template = Template("cell_type_annotation", "A {organism} cell: {cell_sentence}.", "{cell_type}.")
    made = request(template, {**FIELDS, "tissue": "blood"}, 7)
    assert dict(made.values) == FIELDS
    assert made == request(template, {**FIELDS, "tissue": "skin"}, 9)


@pytest.mark.parametrize("fields", [{"organism": "human"}, {"organism": "human", "cell_type": ""}])
def test_missing_field(fields):
    template = Template("cell_type_annotation", "A {organism} cell: {cell_sentence}.", "{cell_type}.")
    with pytest.raises(ValueError, match="needs cell_type, which this cell lacks"):
        request(template, fields, 3)


def test_table_of_another_tokenizer(formatter, tokenizer):
    table = GeneTokenTable(formatter.table.gene_names, formatter.table._tokens, formatter.table._offsets, "other")
    with pytest.raises(ValueError, match="built with another tokenizer"):
        Formatter(tokenizer, table)


def test_two_gene_lists_in_one_template(formatter):
    template = Template("cell_type_annotation", "{cell_sentence}. Or {cell_sentence}. Type:", "{cell_type}.")
    with pytest.raises(ValueError, match=r"more than one \{cell_sentence\}"):
        formatter.examples([request(template, FIELDS, 1)], np.array([0], np.int32), np.array([0, 1]))
