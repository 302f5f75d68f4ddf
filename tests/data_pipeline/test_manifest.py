import json
import textwrap
from pathlib import Path

import pytest

from data_pipeline.manifest import ManifestError, load_manifest, read_manifest
from data_pipeline.manifest.texts import read_questions
from data_pipeline.readers import SomaOptions
from data_pipeline.sources import Source
from tests.data_pipeline import cell_files as files


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with data, texts and a table of aliases beside the manifest."""
    (tmp_path / "data").mkdir()
    for name in ("lung_1", "lung_2", "skin"):
        files.adata().write_h5ad(tmp_path / "data" / f"{name}.h5ad")
    (tmp_path / "abstract.txt").write_text("One text.\nOver two lines.\n")
    (tmp_path / "abstracts.json").write_text('["First.", "Second."]')
    (tmp_path / "captions.tsv").write_text('type 0\tA "round" cell.\ntype 0\tRound.\ntype 1\tFlat.\n')
    (tmp_path / "captions.json").write_text('{"type 0": ["Round."], "type 1": "Flat."}')
    (tmp_path / "questions.jsonl").write_text('{"question": "How?", "answer": "So.", "id": 3}\n\n')
    (tmp_path / "questions.csv").write_text('answer,question\n"So, then.",How?\n')
    (tmp_path / "aliases.tsv").write_text("G0\tGene0\n")
    (tmp_path / "sets.gmt").write_text("set one\tabout\tGene0\tGene1\tGene2\tGene3\tGene4\n")
    return tmp_path


def write(folder: Path, text: str, name: str = "corpus.yaml") -> Path:
    (folder / name).write_text(textwrap.dedent(text))
    return folder / name


FULL = """
defaults:
  organism: human
  columns: {cell_type: label, age: years}
  constants: {tissue: lung}
  qc: {min_genes: 3}
  duplicates: sum
datasets:
  - path: data/lung_*.h5ad
    name: lungs
  - path: data/skin.h5ad
    name: skin
    format: h5ad
    columns: {donor: note, age:}
    constants: {tissue: skin, perturbation: 01, time: 24:00, sex: no}
    layer: dense
    use_raw: false
    scale: counts
    target_sum: 1e4
    gene_column:
    genes_prefix: GRCh38
    aliases: aliases.tsv
    unknown_genes: drop
    empty_cells: keep
    qc: {min_cells: 2}
    spatial: {key: spatial, radius: 20, unit: µm, section: slide}
    control: 01
    abstract: A text.
    abstracts: [abstract.txt, abstracts.json]
    captions: captions.tsv
    questions: questions.jsonl
    pseudobulk: [donor, cell_type]
    soma: {measurement: RNA, obs_filter: "a == 'b'", columns: [a], config: {vfs.s3.region: eu}}
split: 80/10/10
split_by: donor
held_out: [{donor: x, cell_type: [type 0, type 1]}]
stratify:
seed: 7
top_k: 100
ties: cell2sentence
duplicates_cells: drop
gene_sets: [sets.gmt]
"""


def test_every_key_reaches_its_place(folder):
    manifest = load_manifest(write(folder, FULL))
    first, second, skin = manifest.sources
    assert [first.name, second.name] == ["lungs_lung_1", "lungs_lung_2"]
    assert first.data == str(folder / "data" / "lung_1.h5ad")
    assert first == Source(
        first.data,
        "lungs_lung_1",
        "human",
        {"cell_type": "label", "age": "years"},
        {"tissue": "lung"},
        expression={"empty_cells": "drop", "duplicates": "sum"},
        abstracts=[],
        questions=[],
        min_genes=3,
        aliases=first.aliases,
    )
    assert (skin.name, skin.data, skin.format) == ("skin", str(folder / "data" / "skin.h5ad"), "h5ad")
    assert skin.obs_columns == {"cell_type": "label", "donor": "note"}
    assert skin.constants == {"tissue": "skin", "perturbation": "01", "time": "24:00", "sex": "no"}
    assert skin.expression == {
        "layer": "dense",
        "use_raw": False,
        "scale": "counts",
        "target_sum": 1e4,
        "duplicates": "sum",
        "empty_cells": "keep",
    }
    assert (skin.min_genes, skin.min_cells, skin.genes_prefix, skin.unknown_genes) == (3, 2, "GRCh38", "drop")
    assert (skin.spatial_key, skin.radius, skin.spatial_unit, skin.section) == ("spatial", 20.0, "µm", "slide")
    assert skin.control == "01"
    assert dict(skin.aliases) == {"G0": "Gene0"}
    assert skin.abstracts == ["A text.", "One text.\nOver two lines.", "First.", "Second."]
    assert skin.captions == {"type 0": ['A "round" cell.', "Round."], "type 1": ["Flat."]}
    assert skin.questions == [("How?", "So.")]
    assert skin.pseudobulk == ["donor", "cell_type"]
    assert skin.soma == SomaOptions("RNA", "a == 'b'", None, ["a"], None, {"vfs.s3.region": "eu"})
    sets = manifest.options.pop("gene_sets")
    assert [(s.name, s.genes) for s in sets] == [("set one", ("GENE0", "GENE1", "GENE2", "GENE3", "GENE4"))]
    assert manifest.options == {
        "split": (0.8, 0.1, 0.1),
        "split_by": "donor",
        "held_out": ({"donor": ["x"], "cell_type": ["type 0", "type 1"]},),
        "stratify": None,
        "seed": 7,
        "top_k": 100,
        "ties": "cell2sentence",
        "duplicates_cells": "drop",
    }


def test_texts_in_the_manifest_and_in_other_formats(folder):
    manifest = load_manifest(
        write(
            folder,
            """
            defaults: {columns: {cell_type: label}}
            datasets:
              - path: data/skin.h5ad
                captions: {type 0: Round., type 1: [Flat., Thin.]}
                questions: [{question: 'How?', answer: no}]
              - path: data/lung_1.h5ad
                captions: captions.json
                questions: questions.csv
            """,
        )
    )
    skin, lung = manifest.sources
    assert skin.captions == {"type 0": ["Round."], "type 1": ["Flat.", "Thin."]}
    assert skin.questions == [("How?", "no")]
    assert lung.captions == {"type 0": ["Round."], "type 1": ["Flat."]}
    assert lung.questions == [("How?", "So, then.")]


@pytest.mark.parametrize("name", ["odd.jsonl", "odd.tsv"])
def test_a_line_ends_only_where_a_file_has_one(folder, name):
    """Texts from the web hold U+2028, U+0085 and the like, at which ``str.splitlines`` cuts."""
    odd = "a\u2028b\x85c\x0bd"
    lines = [["question", "answer"], ["How?", odd], ["Why?", "So."]]
    text = "".join("\t".join(line) + "\n" for line in lines)
    if name.endswith(".jsonl"):
        entries = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    (folder / name).write_text(text, "utf-8")
    assert read_questions(folder / name) == [("How?", odd), ("Why?", "So.")]


def test_captions_as_a_language_model_writes_them(folder):
    entries = [("type 0", "Round."), ("type 1", "Flat."), ("type 0", "A round cell.")]
    lines = [json.dumps({"cluster": cluster, "caption": text, "model": "any"}) for cluster, text in entries]
    (folder / "captions.jsonl").write_text("\n\n".join(lines) + "\n")
    text = "datasets: [{path: data/skin.h5ad, columns: {cell_type: label}, captions: captions.jsonl}]"
    (source,) = load_manifest(write(folder, text)).sources
    assert source.captions == {"type 0": ["Round.", "A round cell."], "type 1": ["Flat."]}


def test_python_file_says_the_same(folder):
    script = """
    from ml_collections import config_dict

    def get_config():
        return config_dict.ConfigDict({
            "datasets": ({"path": "data/skin.h5ad", "constants": {"age": 40}, "use_raw": True},),
            "split": (8, 1, 1),
        })
    """
    manifest = load_manifest(write(folder, script, "corpus.py"))
    assert manifest.sources[0].constants == {"age": "40"}
    assert manifest.sources[0].expression["use_raw"] is True
    assert manifest.options == {"split": (0.8, 0.1, 0.1)}


def test_names_tell_files_apart(folder):
    for sample in ("a", "b"):
        (folder / sample / "outs").mkdir(parents=True)
        files.adata().write_h5ad(folder / sample / "outs" / "matrix.h5ad")
    manifest = load_manifest(write(folder, "datasets: [{path: '*/outs/matrix.h5ad'}]"))
    assert [source.name for source in manifest.sources] == ["a_outs_matrix", "b_outs_matrix"]
    same = "datasets: [{path: data/skin.h5ad}, {path: data/skin.h5ad, layer: dense}]"
    with pytest.raises(ManifestError, match=r"datasets\[0\], datasets\[1\]: 2 data sets are named 'skin'; give each"):
        load_manifest(write(folder, same))
    sums = """
    defaults: {columns: {donor: note}}
    datasets: [{path: data/skin.h5ad, pseudobulk: donor}, {path: data/lung_1.h5ad, name: skin_pseudobulk}]
    """
    with pytest.raises(ManifestError, match=r"datasets\[0\], datasets\[1\]: 2 data sets are named 'skin_pseudobulk'"):
        load_manifest(write(folder, sums))


def test_uris_are_left_alone(folder):
    manifest = load_manifest(write(folder, "datasets: [{path: 's3://bucket/soma', name: census}]"))
    assert manifest.sources[0].data == "s3://bucket/soma"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("datasets: [{path: x, raduis: 3}]", "datasets[0].raduis is unknown; did you mean 'spatial.radius'?"),
        (
            "datasets: [{path: x, spatial: {raduis: 3}}]",
            "datasets[0].spatial.raduis is unknown; did you mean 'radius'",
        ),
        (
            "datasets: [{path: x, columns: {celltype: l}}]",
            "datasets[0].columns.celltype is unknown; did you mean 'cell",
        ),
        ("default: {layer: x}", "default is unknown; known are split"),
        ("layer: x", "layer belongs to a data set, or under defaults"),
        ("sed: 3", "sed is unknown; did you mean 'seed'?"),
        ("seed: x", "seed: expected a whole number of 0 or more, it is 'x' (str)"),
        ("split: 80/20", "split: expected train/validation/test, for instance 70/10/20, it is '80/20' (str)"),
        ("datasets: [{path: x, use_raw: maybe}]", "datasets[0].use_raw: expected true or false, it is 'maybe' (str)"),
        (
            "datasets: [{path: x, scale: log}]",
            "datasets[0].scale: expected one of auto, counts, normalized, log1p",
        ),
        ("datasets: [{path: x, spatial: 3}]", "datasets[0].spatial: expected keys with values, it is '3' (str)"),
        (
            "datasets: [{path: x, spatial: {key: s, radius: -1}}]",
            "datasets[0].spatial.radius: expected a positive",
        ),
        ("datasets: [{path: x, name: [a]}]", "datasets[0].name: expected text, it is \"['a']\" (list)"),
        ("datasets: [{name: x}]", "datasets[0].path is missing"),
        ("datasets: [data/skin.h5ad]", "datasets[0]: expected keys with values, it is 'data/skin.h5ad' (str)"),
        ("datasets: [{path: none*.h5ad}]", "datasets[0].path: nothing matches 'none*.h5ad'"),
        ("held_out: {donor: x}", "held_out: expected a list of conditions, it is \"{'donor': 'x'}\" (dict)"),
        ("held_out: [{donors: x}]", "held_out: expected one of organism"),
        ("datasets: {path: x}", "datasets: expected a list of data sets, each with at least a path"),
        ("seed: 1", "datasets: expected a list of data sets, each with at least a path"),
        (
            "datasets: [{path: data/skin.h5ad, aliases: none.tsv}]",
            "datasets[0].aliases: table of gene aliases not",
        ),
        ("datasets: [{path: data/skin.h5ad, captions: none.tsv}]", "datasets[0].captions: no file at "),
        ("datasets: [{path: data/skin.h5ad, abstract: none.txt}]", "datasets[0].abstracts: no file at "),
        ("datasets: [{path: data/skin.h5ad, questions: [a]}]", "datasets[0].questions: the list, entry 0: expected"),
        (
            "datasets: [{path: data/skin.h5ad, control: x}]",
            "datasets[0]: control of datasets[0] is 'x', but no",
        ),
        (
            "datasets: [{path: data/skin.h5ad, spatial: {radius: 3}}]",
            "radius of datasets[0] is 3.0: it must be",
        ),
        ("datasets: [{path: data/skin.h5ad, soma: {layer: x}}]", "datasets[0].soma.layer is unknown"),
        ("gene_sets: [none.gmt]", "gene_sets: "),
        ("extracellular: a.txt", "extracellular: there are no interactions"),
    ],
)
def test_every_mistake_is_placed(folder, text, problem):
    path = write(folder, text)
    found = [line for line in read_manifest(path).problems if problem in line]
    assert len(found) == 1, read_manifest(path).problems
    assert found[0].startswith(f"{path}: ")


def test_all_problems_are_found_at_once(folder):
    text = """
    datasets:
      - {path: none, layr: x}
      - {path: data/skin.h5ad, scale: z, seeds: 3}
      - {path: data/lung_1.h5ad}
    split: x
    """
    manifest = read_manifest(write(folder, text))
    assert len(manifest.problems) == 4
    assert [source.name for source in manifest.sources] == ["lung_1"]
    with pytest.raises(ManifestError, match="(?s)layr.*scale.*seeds|split"):
        load_manifest(folder / "corpus.yaml")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("m.yaml", "datasets: [", "(?s)m.yaml is no YAML: .*line 1"),
        ("m.yaml", "seed: 1\nseed: 2", r"'seed' is there twice\s+in .*line 2"),
        ("m.yaml", "[1, 2]", "expected keys such as datasets, it holds list"),
        ("m.yaml", b"seed: \xff", "m.yaml is no YAML: .*utf-8"),
        ("m.py", "x = 1", "m.py has no function get_config"),
    ],
)
def test_files_that_are_no_manifest(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ManifestError, match=problem):
        read_manifest(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="none.yaml"):
        read_manifest(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("key", "name", "content", "problem"),
    [
        (
            "captions",
            "c.tsv",
            "type 0 Round.\n",
            "c.tsv, line 1: expected a value, a tab and a text, there are 1",
        ),
        ("captions", "c.tsv", "a\tb\n\t\na\t \n", "c.tsv: line 3 is no text"),
        ("captions", "c.json", "{", "c.json is no JSON"),
        ("captions", "c.jsonl", '{"cluster": "a", "caption": "b"}\n{', "c.jsonl, line 2 is no JSON"),
        ("captions", "c.jsonl", '\n{"cluster": "a", "text": "b"}', "c.jsonl, line 2: expected 'cluster' and 'caption'"),
        ("captions", "c.jsonl", '{"cluster": "a", "caption": " "}', "c.jsonl: line 1 is no text"),
        ("captions", "c.json", "[1]", "expected texts by value, it holds list"),
        ("captions", "c.json", '{"a": []}', "c.json: 'a' has no text"),
        ("captions", "c.json", '{"a": [""]}', "c.json: a text of 'a' is no text"),
        ("abstracts", "a.json", '{"a": 1}', "a.json: expected a list of texts"),
        ("abstracts", "a.txt", "  ", "a.txt: it is no text"),
        ("abstracts", "a.txt", b"\xff", "a.txt is not UTF-8 at byte 0"),
        ("questions", "q.jsonl", '{"question": "a"}\n', "q.jsonl, line 1: expected 'question' and 'answer'"),
        ("questions", "q.jsonl", '{"question": "a", "answer": "b"}\nx\n', "q.jsonl, line 2 is no JSON"),
        ("questions", "q.csv", "question;answer\na;b\n", "expected columns question and answer in the first line"),
        ("questions", "q.csv", "question,answer\na\n", "q.csv, line 2: expected 'question' and 'answer'"),
        ("questions", "q.csv", "", "q.csv: expected columns question and answer"),
        ("questions", "q.jsonl", "", "q.jsonl holds no question"),
        ("aliases", "a.tsv", "a\tb\tc\n", "a.tsv is no table of gene aliases"),
    ],
)
def test_files_of_texts_that_cannot_be_used(folder, key, name, content, problem):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    entry = {"path": "data/skin.h5ad", "columns": {"cell_type": "label"}, key: name}
    path = write(folder, json.dumps({"datasets": [entry]}))
    (found,) = read_manifest(path).problems
    assert f"datasets[0].{key}: " in found
    assert problem in found


def test_the_documented_example_is_a_manifest(tmp_path):
    document = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    example = document.split("```yaml\n")[1].split("```")[0]
    problems = read_manifest(write(tmp_path, example)).problems
    missing = ("nothing matches", "not found", "no file", "No such file")
    assert [problem for problem in problems if not any(text in problem for text in missing)] == []
    assert len(problems) >= 5


class TestVariables:
    TEXT = """
    datasets:
      - path: ${C2S_TEST_CELLS}/skin.h5ad  # ${C2S_TEST_ABSENT} in a comment is none
        constants: {tissue: "${C2S_TEST_TISSUE} $5"}
    """

    def test_from_the_environment(self, folder, monkeypatch):
        monkeypatch.setenv("C2S_TEST_CELLS", str(folder / "data"))
        monkeypatch.setenv("C2S_TEST_TISSUE", "skin")
        (source,) = load_manifest(write(folder, self.TEXT)).sources
        assert source.data == str(folder / "data" / "skin.h5ad")
        assert source.constants["tissue"] == "skin $5"

    def test_absent(self, folder, monkeypatch):
        monkeypatch.delenv("C2S_TEST_CELLS", raising=False)
        with pytest.raises(
            ManifestError, match=r"corpus\.yaml: .*line 3\): the environment has no variable C2S_TEST_CELLS"
        ):
            load_manifest(write(folder, self.TEXT))
