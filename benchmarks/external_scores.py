"""Our scores beside those of cell-eval, scib-metrics and pertpy, which read the files that an evaluation exports.

    python -m benchmarks.external_scores [--python=ENVIRONMENT/bin/python] [--pertpy-python=OTHER/bin/python]

``--python`` has ``pip install cell-eval scib-metrics``; ``--pertpy-python`` has ``pip install pertpy`` and, which
pertpy 1.0.3 needs but does not ask for, ``filelock "statsmodels<0.15"``. Cells are random, with effects of five
perturbations that the "generated" ones have in part. Prints JSON: both sides' numbers and the greatest difference.

Of pertpy's distances only ``mmd`` with an RBF kernel of the same width is one of ours. Its other numbers are for the
record: by default its ``mmd`` has a linear kernel, which is the squared distance of means; its ``wasserstein`` is the
cost of a plan with entropy, which is no distance and is not 0 between a group and itself, where ours is exact, or
debiased, and a root.
"""

import argparse
import json
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from benchmarks._peer import Peer
from c2s_jax import metrics
from c2s_jax.evaluation import exports

CELLS, GENES, PERTURBATIONS = 60, 300, 5
GAMMA = 0.05  # of the kernel, in 1 / squared units of the principal components of log10 expression


def made_up() -> dict[str, Any]:
    """Control, real and generated log10 expression, with the perturbation of the latter two."""
    rng = np.random.default_rng(0)
    mean = rng.lognormal(0, 1, GENES)

    def cells(n: int, factor: NDArray) -> NDArray[np.float32]:
        return np.log10(1 + rng.gamma(2, mean * factor / 2, (n, GENES))).astype(np.float32)

    effects = rng.lognormal(0, 0.4, (PERTURBATIONS, GENES))
    found = effects**0.5 * rng.lognormal(0, 0.2, effects.shape)
    return {
        "control": cells(CELLS, np.ones(GENES)),
        "real": np.concatenate([cells(CELLS, x) for x in effects]),
        "generated": np.concatenate([cells(CELLS, x) for x in found]),
        "names": np.repeat([f"P{i}" for i in range(PERTURBATIONS)], CELLS),
    }


def write(folder: str, cells: dict[str, Any], pca: PCA) -> None:
    """The exported files."""
    control, real, generated, names = (cells[key] for key in ("control", "real", "generated", "names"))
    genes = [f"GENE{i}" for i in range(GENES)]
    exports.write_perturbed(
        folder,
        ("cell-eval", "pertpy"),
        real=real,
        generated=generated,
        control=control,
        obs={"perturbation": names, "cell_type": np.full(len(names), "cell")},
        control_obs={"cell_type": np.full(len(control), "cell")},
        genes=genes,
        space=pca,
    )
    exports.write_embedded(
        folder,
        expression=real,
        embeddings={"X_pca": pca.transform(real), "X_c2s": real[:, :20]},
        obs={"cell_type": names, "batch": np.full(len(names), "one")},
        genes=genes,
    )


def scores(cells: dict[str, Any], pca: PCA) -> dict[str, dict[str, float]]:
    """Ours, by perturbation or embedding."""
    control, real, generated, names = (cells[key] for key in ("control", "real", "generated", "names"))
    pairs = {p: (real[names == p], generated[names == p]) for p in np.unique(names).tolist()}
    spaces = {p: (pca.transform(a), pca.transform(b)) for p, (a, b) in pairs.items()}
    return {
        "pearson_delta": {p: metrics.delta_correlation(a, b, control).pearson for p, (a, b) in pairs.items()},
        "silhouette": {
            key: (1 + metrics.silhouette(space, names)) / 2
            for key, space in (("X_c2s", real[:, :20]), ("X_pca", pca.transform(real)))
        },
        "mmd": {p: metrics.mmd(a, b, gammas=(GAMMA,)) for p, (a, b) in spaces.items()},
        "wasserstein": {p: metrics.wasserstein(a, b) for p, (a, b) in spaces.items()},
    }


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="interpreter that has cell-eval and scib-metrics")
    parser.add_argument("--pertpy-python", help="interpreter that has pertpy")
    arguments = parser.parse_args()
    cells = made_up()
    pca = PCA(10, random_state=0).fit(cells["real"])
    theirs: dict[str, Any] = {"versions": {}}
    with tempfile.TemporaryDirectory() as folder:
        write(folder, cells, pca)
        if arguments.python:
            peer = Peer("_external_peer", python=arguments.python)
            theirs["versions"] |= peer("about")
            theirs["pearson_delta"] = {p: v["pearson_delta"] for p, v in peer("cell_eval", folder=folder).items()}
            theirs["silhouette"] = peer("scib", folder=folder)
            peer.close()
        if arguments.pertpy_python:
            peer = Peer("_pertpy_peer", python=arguments.pertpy_python)
            theirs["versions"] |= peer("about")
            theirs["mmd"] = peer("distances", folder=folder, metric="mmd", settings={"kernel": "rbf", "gamma": GAMMA})
            for metric in ("mmd", "mse", "edistance", "wasserstein"):
                theirs[f"pertpy {metric}"] = peer("distances", folder=folder, metric=metric, settings={})
            peer.close()
    ours = scores(cells, pca)
    shared = [key for key in ours if key in theirs]
    gaps = {key: max(abs(ours[key][x] - theirs[key][x]) for x in ours[key]) for key in shared}
    print(json.dumps({"ours": ours, "theirs": theirs, "greatest_difference": gaps}, indent=1))


if __name__ == "__main__":
    main()
