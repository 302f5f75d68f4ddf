import numpy as np
import pytest

from c2s_jax.data import Corpus, Formatter, request
from c2s_jax.data.ragged import offsets
from c2s_jax.tasks import TASKS, Template, load_templates
from c2s_jax.text import GeneTokenTable, Tokenizer, load_tokenizer
from tests.text.neox import real_file, train_neox

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
        # Byte-level BPE cuts line breaks by what follows them.
        "\n\n{cell_sentence}\n\n\nType:\n",
        "Cell:\n\n{cell_sentence}.\n\n",
        "Cell of {cell_type} \n \n\n{cell_sentence}\n    Type:",
        "Cell:\t\n{cell_sentence}    \nType:\t",
        "Cell:\n\n {cell_sentence}.\n \n",
    )
] + [
    Template("cell_sentence_modelling", "A cell:", "{cell_sentence}"),
    Template("cell_sentence_modelling", "A cell:\n", "{cell_sentence}. End"),
    Template("cell_sentence_modelling", "A cell:\n\n", "{cell_sentence}.\n\n"),
    Template("cell_type_conditioned_generation", "{cell_type}", "Cell:\n\n{cell_sentence}"),
]
TEMPLATES = [*(t for task in TASKS for t in load_templates(task)), *AWKWARD]


NAMES = ["H2-T24(PS)", "1700001O22RIK", "NAÏVE-1", "'S-GENE", "IFNA_"]  # after those of the other tests


@pytest.fixture(scope="module", params=["sentence_piece", "neox"])
def formatter(request, tokenizer, gene_names, tmp_path_factory) -> Formatter:
    names = [*gene_names, *NAMES]
    if request.param == "neox":
        sentences = [" " + " ".join(names[i : i + 9]) + "." for i in range(len(names))]
        texts = [*sentences, *(f"{t.model_input} {t.response}" for t in TEMPLATES), *FIELDS.values()] * 3
        tokenizer = load_tokenizer(train_neox(tmp_path_factory.mktemp("neox"), texts))
        assert tokenizer.encode("\n\nA")[:2] == tokenizer.encode("\n") * 2 != tokenizer.encode("\n\n")
    return Formatter(tokenizer, GeneTokenTable.build(tokenizer, names))


def start(tokenizer) -> list[int]:
    return [] if tokenizer.bos_id is None else [tokenizer.bos_id]


def as_text(template: Template, genes: list[int], names: list[str]) -> tuple[str, str]:
    """Prompt and response, written out; the space between them belongs to the response."""
    values = {**FIELDS, "num_genes": str(len(genes)), "cell_sentence": " ".join(names[g] for g in genes)}
    return template.model_input.format(**values), " " + template.response.format(**values)


def check(formatter: Formatter, templates: list[Template], lists: list[list[int]]) -> None:
    t, names = formatter.tokenizer, list(formatter.table.gene_names)
    requests = [request(x, FIELDS, len(genes)) for x, genes in zip(templates, lists)]
    genes, indptr = np.concatenate(lists).astype(np.int32), offsets(np.array([len(x) for x in lists]))
    examples, prompts = formatter.examples(requests, genes, indptr), formatter.prompts(requests, genes, indptr)
    assert len(examples.lengths) == len(prompts.lengths) == len(requests)
    np.testing.assert_array_equal(formatter.lengths(requests, genes, indptr), examples.lengths)
    for i, (template, listed) in enumerate(zip(templates, lists)):
        prompt, response = as_text(template, listed, names)
        expected = [*start(t), *t.encode(prompt + response), t.eos_id]
        part = slice(examples.indptr[i], examples.indptr[i + 1])
        assert examples.tokens[part].tolist() == expected, template
        n_prompt = len(start(t)) + len(t.encode(prompt))
        assert examples.is_response[part].tolist() == [j >= n_prompt for j in range(len(expected))], template
        asked = slice(prompts.indptr[i], prompts.indptr[i + 1])
        assert prompts.tokens[asked].tolist() == expected[:n_prompt]
        assert not prompts.is_response[asked].any()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: f"{t.task}-{t.model_input[:20]!r}")
def test_tokens_are_those_of_the_written_out_text(formatter, template):
    rng = np.random.default_rng(3)
    n_genes = len(formatter.table)
    lists = [rng.permutation(n_genes)[:n].tolist() for n in (1, 2, 40)]
    check(formatter, [template] * (3 + len(NAMES)), [*lists, *([n_genes - 1 - i] for i in range(len(NAMES)))])


def test_all_templates_mixed_in_one_batch(formatter):
    rng = np.random.default_rng(4)
    templates = [TEMPLATES[i] for i in rng.permutation(np.repeat(np.arange(len(TEMPLATES)), 4))]
    lists = [rng.permutation(len(formatter.table))[: rng.integers(1, 30)].tolist() for _ in templates]
    check(formatter, templates, lists)


def check_all(tokenizer: Tokenizer, names: list[str]) -> None:
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, names))
    rng = np.random.default_rng(5)
    check(formatter, TEMPLATES, [rng.permutation(len(names))[:50].tolist() for _ in TEMPLATES])


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


def test_table_of_another_tokenizer(formatter):
    table = GeneTokenTable(formatter.table.gene_names, formatter.table._tokens, formatter.table._offsets, "other")
    with pytest.raises(ValueError, match="built with another tokenizer"):
        Formatter(formatter.tokenizer, table)


def test_two_gene_lists_in_one_template(formatter):
    template = Template("cell_type_annotation", "{cell_sentence}. Or {cell_sentence}. Type:", "{cell_type}.")
    with pytest.raises(ValueError, match=r"more than one \{cell_sentence\}"):
        formatter.examples([request(template, FIELDS, 1)], np.array([0], np.int32), np.array([0, 1]))
