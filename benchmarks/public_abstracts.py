"""Short abstracts of public studies, with their cells: a corpus for data set interpretation.

    C2S_DATA=FOLDER python -m benchmarks.public_abstracts --output=FOLDER [--cells=400] [--variants=20]
    python -m benchmarks.public_abstracts --output=FOLDER --encoder=ENCODER

No abstract is that of a paper, and no language model is asked: a program puts facts of each data set's README and
annotation (``_studies``) into sentences of its own, and varies wording and order. Writes ``<study>.h5ad``, so many
cells of each at most, drawn at random; ``<study>.json``, its abstracts; and ``abstracts.yaml``, the manifest, in which
the studies of two tissues are for the test alone. With ``--encoder``, which BERTScore has (docs/metrics.md), only says
how near the abstracts of the other studies are to those of a held-out one: what an answer scores that knows nothing.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import yaml

from benchmarks._studies import HELD_OUT, STUDIES, Study
from c2s_jax import metrics
from c2s_jax.encoders import load_text_encoder
from c2s_jax.metrics.bertscore import TokenEncoder

SUBJECT = (
    "Single cells of {subject} were profiled by {technology}.",
    "This study profiles {subject} one cell at a time, by {technology}.",
    "We measured gene expression in single cells of {subject}; the method is {technology}.",
    "Here {subject} are resolved into single cells by {technology}.",
)
OTHERS = (
    ("The cells come from {donors}.", "The material is of {donors}.", "Source: {donors}."),
    ("{design}.", "In the experiment, {lower}.", "The design: {lower}."),
    ("Among the cells are {types}.", "Populations that were told apart include {types}.", "Annotated are {types}."),
    ("The data cover {genes} genes.", "Expression of {genes} genes is reported.", "There are {genes} genes."),
)
NAMES = re.compile(r"{(\w+)}")
NAMED = 5  # types
GENES = 1_000  # kept of each study, those that vary most


def abstracts(study: Study, types: list[str], genes: int, number: int, rng: np.random.Generator) -> list[str]:
    """Different texts that say the same."""
    facts = {
        "subject": study.subject,
        "technology": study.technology,
        "donors": study.donors,
        "design": study.design,
        "lower": study.design[:1].lower() + study.design[1:],
        "types": " and ".join([", ".join(types[:-1]), types[-1]]) if len(types) > 1 else "",
        "genes": f"{genes:,}",
    }
    sentences = [forms for forms in OTHERS if all(facts[name] for name in NAMES.findall(forms[0]))]
    plain = " ".join(forms[0].format(**facts) for forms in (SUBJECT, *sentences))
    found = {plain: None}
    while len(found) < number:
        order = [sentences[i] for i in rng.permutation(len(sentences))]
        found[" ".join(forms[rng.integers(len(forms))].format(**facts) for forms in (SUBJECT, *order))] = None
    return list(found)


def sample(cells: ad.AnnData, study: Study, most: int, rng: np.random.Generator) -> ad.AnnData:
    """Some of a study's cells, with the fields of the corpus and the genes that vary most among them."""
    some = cells[np.sort(rng.permutation(cells.n_obs)[:most])].copy()
    fields = {
        name: some.obs[column].astype(str).to_numpy() if column else ""
        for name, column in zip(("cell_type", "donor"), study.columns)
    }
    some.obs = pd.DataFrame({**fields, "tissue": study.tissue}, index=[f"cell_{i}" for i in range(some.n_obs)])
    if some.n_vars > GENES:
        logs = some.copy()
        if float(logs.X.max()) > 30:  # counts
            sc.pp.normalize_total(logs)
            sc.pp.log1p(logs)
        sc.pp.highly_variable_genes(logs, n_top_genes=GENES)
        some = some[:, logs.var["highly_variable"].to_numpy()].copy()
    return ad.AnnData(some.X, obs=some.obs, var=pd.DataFrame(index=some.var_names))


def blind(folder: Path, encoder: TokenEncoder) -> dict[str, dict[str, float]]:
    """F1 of other studies' abstracts for each held-out study: one drawn at random in the mean, and the best study's."""
    texts = {name: json.loads((folder / f"{name}.json").read_text()) for name in STUDIES}
    out = {}
    for held_out in (name for name, study in STUDIES.items() if study.tissue in HELD_OUT):
        means = {
            name: float(metrics.bertscore(texts[name], [texts[held_out]] * len(texts[name]), encoder).f1.mean())
            for name, study in STUDIES.items()
            if study.tissue not in HELD_OUT
        }
        best = max(means, key=means.__getitem__)
        out[held_out] = {"random": float(np.mean(list(means.values()))), f"best, {best}": means[best]}
    return out


def entry(name: str, study: Study, data: Path) -> dict[str, Any]:
    """Of the manifest."""
    fields = {"columns": {key: key for key in ("cell_type", "donor", "tissue")}, "abstracts": [f"{name}.json"]}
    aliases = {"aliases": str(data / "hgnc" / "hgnc_complete_set.txt.gz")} if study.organism == "human" else {}
    return {"path": f"{name}.h5ad", "name": name, "organism": study.organism, **fields, **aliases}


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=400)
    parser.add_argument("--variants", type=int, default=20)
    parser.add_argument("--encoder", help="folder of a BERT")
    given = parser.parse_args()
    if given.encoder:
        print(json.dumps(blind(given.output, load_text_encoder(given.encoder)), indent=1))
        return
    data = Path(os.environ.get("C2S_DATA", ""))
    if not os.environ.get("C2S_DATA") or not data.is_dir():
        sys.exit("error: name the folder of data sets in C2S_DATA")
    given.output.mkdir(parents=True, exist_ok=True)
    for number, (name, study) in enumerate(STUDIES.items()):
        rng = np.random.default_rng([0, number])
        cells = study.read(data / study.path)
        column = study.columns[0]
        labels = cells.obs[column].astype(str) if column else pd.Series(dtype=str)
        types = labels[labels != ""].value_counts(sort=True).index[:NAMED].tolist()
        types = [re.sub(r"[_.]", " ", t) for t in types]
        texts = abstracts(study, types, cells.n_vars, given.variants, rng)
        kept = sample(cells, study, given.cells, rng)
        kept.write_h5ad(given.output / f"{name}.h5ad")
        (given.output / f"{name}.json").write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {kept.n_obs} cells, {kept.n_vars} genes. {texts[0]}")
    manifest = {
        "defaults": {"duplicates": "sum"},
        "datasets": [entry(name, study, data.resolve()) for name, study in STUDIES.items()],
        "split": "80/5/15",
        "held_out": [{"tissue": list(HELD_OUT)}],
    }
    (given.output / "abstracts.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))


if __name__ == "__main__":
    main()
