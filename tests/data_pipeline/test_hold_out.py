"""Conditions to hold out, chosen by a rule."""

import subprocess
import sys
from collections import Counter

import pytest
import yaml

from c2s_jax.data.corpus import Corpus
from data_pipeline.hold_out import conditions
from tests.data_pipeline import cell_files as files

PAIRS = [(f"drug {d}", f"line {line}") for d in range(8) for line in range(d % 4 + 1) for _ in range(5 + 20 * (d == 3))]


def chosen(**changes):
    settings = dict(group="perturbation", within="cell_type", groups=3, fewer_than=100, seed=0)
    return conditions(PAIRS, **settings | changes)


def test_half_of_the_lines_of_some_rare_drugs() -> None:
    found = chosen()
    assert len(found) == 3
    counts, lines = Counter(drug for drug, _ in PAIRS), dict[str, set[str]]()
    for drug, line in PAIRS:
        lines.setdefault(drug, set()).add(line)
    for condition in found:
        (drug,) = condition["perturbation"]
        assert counts[drug] < 100
        held = set(condition["cell_type"])
        assert held < lines[drug]
        assert len(held) == max(1, len(lines[drug]) // 2)
    everyone = {c["perturbation"][0] for c in chosen(groups=5)}
    assert everyone == {"drug 1", "drug 2", "drug 5", "drug 6", "drug 7"}  # 0 and 4 have one line, 3 has 100 cells


def test_the_choice_hangs_on_names_and_seed() -> None:
    assert chosen() == conditions(
        reversed(PAIRS), group="perturbation", within="cell_type", groups=3, fewer_than=100, seed=0
    )
    assert len({str(chosen(seed=seed)) for seed in range(6)}) > 1
    assert all(c["perturbation"] != ["drug 7"] for c in chosen(groups=4, never=["drug 7"]))


def test_too_few() -> None:
    with pytest.raises(
        ValueError, match="5 values of perturbation have fewer than 100 cells and two values of cell_type"
    ):
        chosen(groups=6)


def test_command_and_corpus(tmp_path) -> None:
    """What is printed goes into the manifest, and the corpus has it in the test split."""
    adata = files.adata()
    adata.obs["drug"] = [f"drug {i % 3}" for i in range(adata.n_obs)]
    adata.obs["line"] = [f"line {i // 3 % 4}" for i in range(adata.n_obs)]
    adata.write_h5ad(tmp_path / "a.h5ad")
    manifest = {
        "datasets": [
            {"path": "a.h5ad", "columns": {"perturbation": "drug", "cell_type": "line"}, "control": "drug 0"}
            | {"duplicates": "sum"}
        ],
        "split": "100/0/0",
    }
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(manifest))
    command = [sys.executable, "-m", "data_pipeline.hold_out", f"--manifest={tmp_path}/m.yaml", "--fewer_than=1000"]
    done = subprocess.run([*command, "--groups=2"], capture_output=True, text=True, check=True)
    held_out = yaml.safe_load(done.stdout)["held_out"]
    assert [c["perturbation"] for c in held_out] == [["drug 1"], ["drug 2"]]
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(manifest | {"held_out": held_out}))
    build = [sys.executable, "-m", "data_pipeline.build", f"--manifest={tmp_path}/m.yaml"]
    subprocess.run([*build, f"--output={tmp_path}/c"], capture_output=True, check=True)
    test = Corpus(tmp_path / "c").cells("test")
    there = set(zip(test.fields("perturbation").tolist(), test.fields("cell_type").tolist()))
    assert there == {(c["perturbation"][0], line) for c in held_out for line in c["cell_type"]}
    failed = subprocess.run([*command, "--groups=3"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert "3 were asked for" in failed.stderr
