import dataclasses
import re
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from absl import flags
from scipy import sparse
from scipy.spatial.distance import cdist

from c2s_jax.data.augment import Augmentation
from c2s_jax.data.contexts import Known
from c2s_jax.data.corpus import Corpus
from c2s_jax.data.formatting import Formatter
from c2s_jax.data.task_stream import TaskStream
from c2s_jax.data.writer import Writer
from c2s_jax.report import Table
from c2s_jax.tasks import TASKS
from c2s_jax.text import GeneTokenTable, Tokenizer, load_tokenizer
from data_pipeline.build import build_corpus
from data_pipeline.describe import Description, __main__, describe
from data_pipeline.describe.prompts import sample_prompts
from data_pipeline.describe.tasks import SHOWN_CELLS, SHOWN_GENES, sample_settings, supported_tasks, task_tables
from data_pipeline.knowledge_files import GeneSet, Interaction
from data_pipeline.sources import Source

RADIUS = 12.0
NEED_BULK = {"bulk_generation", "cell_generation_from_bulk"}


def counts(n_cells: int, n_genes: int, seed: int) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    values = rng.poisson(rng.lognormal(0, 1.2, n_genes), (n_cells, n_genes)).astype(np.float32)
    values[:, 0] += 1
    adata = ad.AnnData(sparse.csr_matrix(values))
    adata.obs_names = [f"cell{seed}_{i}" for i in range(n_cells)]
    adata.var_names = [f"GENE{i}" for i in range(n_genes)]
    return adata


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """A perturbation screen with texts, and a tissue section."""
    rng = np.random.default_rng(0)
    screen, section = counts(240, 30, 1), counts(200, 40, 2)
    screen.obs["label"] = rng.choice(["B cell", "T cell", ""], 240, p=[0.6, 0.3, 0.1])
    screen.obs["patient"] = rng.choice(["d1", "d2"], 240, p=[0.7, 0.3])
    screen.obs["treatment"] = rng.choice(["ctrl", "IFN-beta"], 240)
    section.obs["label"] = rng.choice(["B cell", "neuron"], 200)
    section.obsm["spatial"] = rng.uniform(0, 100, (200, 2))
    section.obs["layer"] = np.where(section.obsm["spatial"][:, 0] < 50, "layer 1", "layer 2")
    return [
        Source(
            screen,
            "screen",
            "human",
            {"cell_type": "label", "donor": "patient", "perturbation": "treatment"},
            {"tissue": "blood"},
            abstracts=["Blood of two donors was treated with interferon."],
            captions={"B cell": ["B cells that answer to interferon.", "Interferon and B cells."]},
            questions=[("Which cells answer?", "B cells."), ("Who gave blood?", "Two donors."), ("How long?", "6 h.")],
            control="ctrl",
        ),
        Source(
            section,
            "section",
            "mouse",
            {"cell_type": "label", "niche": "layer"},
            {"tissue": "cortex"},
            spatial_key="spatial",
            radius=RADIUS,
            spatial_unit="um",
        ),
    ]


@pytest.fixture(scope="module")
def folder(sources, tmp_path_factory) -> Path:
    sets = [GeneSet(f"set {i}", "", "sets.gmt", tuple(f"GENE{j}" for j in range(i, i + 6))) for i in range(20)]
    pair = Interaction("CellPhoneDB", "ligand-receptor", ("GENE0",), ("GENE1",))
    path = tmp_path_factory.mktemp("described") / "corpus"
    return build_corpus(sources, path, split=(0.6, 0.2, 0.2), gene_sets=sets, interactions=[pair])


@pytest.fixture(scope="module")
def described(folder) -> Description:
    return describe(folder, prompts=2)


def table(described: Description, title: str) -> Table:
    return next(t for t in described.tables if t.title == title)


def rows(described: Description, title: str) -> dict[str, list]:
    return {row[0]: list(row[1:]) for row in table(described, title).rows}


def test_splits(described, folder):
    found, corpus = rows(described, "Splits"), Corpus(folder)
    assert list(found) == list(corpus.splits)
    for split, (n, share, datasets, samples, types, genes) in found.items():
        cells = corpus.cells(split)
        assert (n, datasets, samples) == (len(cells), 2, 3)
        assert types == 3
        assert share == f"{len(cells) / 440:.1%}"
        assert genes.startswith(f"{np.median([len(c.genes) for c in cells]):.0f} (")
    assert "440 cells, 40 genes" in table(described, "Splits").caption


def test_data_sets(described, folder):
    found = rows(described, "Data sets")
    for entry, n in zip(Corpus(folder).datasets, (240, 200)):
        organism, cells, by_split, _, scale, r2, r2_all, slope, _ = found[entry["name"]]
        fit = entry["rank_expression"]
        assert (cells, scale, r2, r2_all, slope) == (n, "counts", fit["r2"], fit["r2_all"], fit["slope"])
        assert sum(map(int, by_split.split("/"))) == n
        assert organism == {"screen": "human", "section": "mouse"}[entry["name"]]


def test_fields(described, sources):
    found = rows(described, "Fields")
    labels = pd.concat([s.data.obs["label"] for s in sources])
    known = labels[labels != ""]
    assert found["cell_type"][:2] == [f"{len(known) / 440:.1%}", 3]
    top = known.value_counts()
    assert found["cell_type"][2].startswith(f"{top.index[0]} ({top.iloc[0] / 440:.0%}), ")
    assert found["perturbation"][:2] == [f"{240 / 440:.1%}", 2]
    assert found["age"] == ["0.0%", 0, "–"]


def test_labels(described, folder):
    corpus = Corpus(folder)
    for title, field in (("Cell type", "cell_type"), ("Niche", "niche"), ("Perturbation", "perturbation")):
        found = rows(described, title)
        assert "" not in found
        for value, by_split in found.items():
            assert by_split == [int((corpus.cells(s).fields(field) == value).sum()) for s in corpus.splits]
    assert "Disease" not in [t.title for t in described.tables]


def test_samples_and_neighbours(described, folder):
    corpus = Corpus(folder)
    for split, (n, _, largest, large, share) in rows(described, "Samples").items():
        sizes = pd.Series(corpus.cells(split).groups).value_counts()
        assert (n, largest, large) == (len(sizes), sizes.max(), (sizes >= 5).sum())
        assert share == f"{sizes[sizes >= 5].sum() / sizes.sum():.1%}"
    near = table(described, "Neighbours in space").rows
    assert [row[:3] for row in near] == [["section", split, "12 um"] for split in corpus.splits]
    for _, split, _, n, degrees, alone in near:
        own = np.array([c.coordinates for c in corpus.cells(split) if len(c.coordinates)], np.float64)
        expected = (cdist(own, own) <= RADIUS).sum(axis=1) - 1
        assert (n, alone) == (len(own), f"{np.mean(expected == 0):.1%}")
        assert degrees.startswith(f"{np.median(expected):.0f} (")


def test_texts_and_knowledge(described, folder):
    found = rows(described, "Texts")
    assert found["section"][:3] == [0, 0, 0]
    abstracts, captioned, captions, asked, control = found["screen"]
    assert (abstracts, captioned, captions, control) == (1, 1, 2, "ctrl")
    assert sum(map(int, asked.split("/"))) == 3
    knowledge = table(described, "Gene knowledge").rows
    assert [row[:3] for row in knowledge] == [
        ["sets.gmt", "gene sets", 20],
        ["CellPhoneDB", "interactions: ligand-receptor", 1],
    ]
    splits = [sum(s.split == split for s in Corpus(folder).gene_sets) for split in Corpus(folder).splits]
    assert knowledge[0][3] == "/".join(map(str, splits))


def test_tasks(described, folder):
    found, train = rows(described, "Examples of each task"), Corpus(folder).cells("train")
    assert list(found) == list(TASKS)
    assert found["cell_sentence_modelling"][0] == len(train)
    assert found["cell_type_annotation"][0] == (train.fields("cell_type") != "").sum()
    assert found["perturbation_response"][0] > 0
    assert {task for task, n in found.items() if not n[0]} == NEED_BULK
    lacking = rows(described, "What tasks lack")
    assert set(lacking) >= NEED_BULK
    assert "pseudobulk" in lacking["bulk_generation"][0]
    assert "or drop the task" not in str(lacking)


def test_corpus_without_anything_but_cells(tmp_path):
    plain = describe(build_corpus(counts(60, 20, 3), tmp_path / "plain", stratify=None), prompts=1)
    found = rows(plain, "Examples of each task")
    possible = {task for task, n in found.items() if n[0]}
    assert possible == {"cell_sentence_modelling", "multi_cell_sentence_modelling"}
    lacking = rows(plain, "What tasks lack")
    assert set(lacking) == set(TASKS) - possible
    assert "--gene_sets" in lacking["gene_set_naming"][0]
    assert "cell_type" in lacking["cell_type_annotation"][0]
    assert [row[0] for row in table(plain, "Sample prompts").rows] == sorted(possible)
    assert "Neighbours in space" not in [t.title for t in plain.tables]
    assert plain.write_html(tmp_path / "plain.html").read_text().count("<img") == 3


def assert_prompts_are_read(corpus: Corpus, tasks: set[str], tokenizer: Tokenizer) -> None:
    """Decoded tokens of the stream are the sample prompts."""
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
    known = Known(corpus, "train")
    for task in tasks:
        stream = TaskStream(sample_settings(task), known, number=5, seed=0)
        examples = Writer(stream, formatter, seq_len=10**6, augmentation=Augmentation()).write(np.arange(4)).examples
        for i, (prompt, response) in enumerate(sample_prompts(stream, corpus.genes.names, 4)):
            tokens = examples.tokens[examples.indptr[i] : examples.indptr[i + 1]]
            assert (tokens[0], tokens[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
            assert tokenizer.decode(tokens[1:-1]) == f"{prompt} {response}"


def test_prompts_are_what_a_model_reads(described, folder, bundle):
    prompts = table(described, "Sample prompts").rows
    shown = [row[0] for row in prompts]
    assert set(shown) == set(TASKS) - NEED_BULK
    assert shown.count("tissue_annotation") == 2
    longest = max(re.findall(r"(?:GENE\d+ ?)+", str(prompts)), key=len)
    assert len(longest.split()) == SHOWN_GENES
    assert f"Cell {SHOWN_CELLS + 1}:" not in str(prompts)
    assert_prompts_are_read(Corpus(folder), set(shown), load_tokenizer(bundle.tokenizer))


def test_prompts_of_pseudobulk(sources, tmp_path, bundle):
    screen = dataclasses.replace(sources[0], pseudobulk=("donor", "cell_type", "perturbation"))
    corpus = Corpus(build_corpus(screen, tmp_path / "corpus", split=(1, 0, 0)))
    found = {row[0]: row[1] for row in task_tables(supported_tasks(corpus))[0].rows}
    assert found["bulk_generation"] > 100
    assert found["cell_generation_from_bulk"] > 100
    assert_prompts_are_read(corpus, NEED_BULK, load_tokenizer(bundle.tokenizer))


def test_token_lengths(folder, bundle):
    tokenizer = load_tokenizer(bundle.tokenizer)
    found = describe(folder, tokenizer=tokenizer, prompts=0)
    assert "Sample prompts" not in [t.title for t in found.tables]
    measured = {row[0]: row for row in table(found, "Tokens an example").rows}
    assert set(measured) == set(TASKS) - NEED_BULK
    stream = found.supported["train"]["cell_type_annotation"]
    assert isinstance(stream, TaskStream)
    texts = sample_prompts(stream, found.corpus.genes.names, 50)
    asked = [len(tokenizer.encode(prompt)) + 1 for prompt, _ in texts]
    both = [len(tokenizer.encode(f"{prompt} {response}")) + 2 for prompt, response in texts]
    np.testing.assert_array_equal(found.lengths["cell_type_annotation"][:50], np.stack([asked, both], axis=1))
    assert measured["cell_type_annotation"][-2] == found.lengths["cell_type_annotation"][:, 1].max()


def test_text_for_a_terminal(described):
    text = described.text()
    headings = [line for line, rule in zip(text.split("\n"), text.split("\n")[1:]) if set(rule) == {"="}]
    assert headings == ["Cells", "Labels", "Samples and neighbourhoods", "Texts and knowledge", "Tasks"]
    assert max(map(len, text.split("\n"))) <= 130
    assert re.search(r"^  screen +human +240 ", text, re.MULTILINE)
    assert re.search(r"^    Response  (B|T) cell\.$|^    Response  neuron\.$", text, re.MULTILINE)


def test_page_needs_nothing_beside_it(described, tmp_path):
    page = described.write_html(tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == page.count("<img") == len(described.pictures())
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)
    assert "All numbers" not in page
    for expected in (
        "Blood of two donors was treated with interferon",
        "B cell",
        "<h3>Neighbours a cell</h3>",
        ">22 of 24<",
    ):
        assert expected in page


class TestCommand:
    @pytest.fixture
    def options(self):
        """Function that gives the options of a command line."""

        def parse(*arguments: str) -> flags.FlagValues:
            values = flags.FlagValues()
            __main__.define_flags(values)
            values(["describe", *arguments])
            return values

        return parse

    def test_everything_at_once(self, folder, options, tmp_path, bundle):
        page = tmp_path / "page.html"
        text = __main__.run(
            str(folder), options("--verify", f"--html={page}", f"--tokenizer={bundle.tokenizer}", "--prompts=0")
        )
        assert "files are as they were written" in text
        assert "Tokens an example" in text
        assert "Sample prompts" not in text
        assert text.endswith(str(page))
        assert page.stat().st_size > 50_000

    def test_damage_is_found_with_verify_only(self, sources, options, tmp_path):
        folder = build_corpus(sources[1], tmp_path / "corpus")
        path = folder / "genes.tsv"
        path.write_text(path.read_text().replace("GENE7", "GENE_"))
        __main__.run(str(folder), options("--prompts=0"))
        with pytest.raises(ValueError, match=r"damaged files: genes\.tsv"):
            __main__.run(str(folder), options("--verify"))

    def test_errors_are_one_line(self, tmp_path, monkeypatch, options):
        with pytest.raises(SystemExit, match="error: name one corpus"):
            __main__.main(["describe"])
        monkeypatch.setattr(__main__.flags, "FLAGS", options())
        with pytest.raises(SystemExit, match=r"error: no corpus at .*none"):
            __main__.main(["describe", str(tmp_path / "none")])
