"""Our scores beside those of cell-eval and scib-metrics, which read the files that an evaluation exports.

    python -m benchmarks.external_scores --python=ENVIRONMENT/bin/python

``--python`` has ``pip install cell-eval scib-metrics``. Cells are random, with effects of five perturbations that the
"generated" ones have in part. Prints JSON: both sides' numbers and the greatest difference.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="interpreter that has cell-eval and scib-metrics")
    arguments = parser.parse_args()
    cells = made_up()
    control, real, generated, names = (cells[key] for key in ("control", "real", "generated", "names"))
    pca = PCA(10, random_state=0).fit(real)
    with tempfile.TemporaryDirectory() as folder:
        exports.write_perturbed(
            folder,
            ("cell-eval",),
            real=real,
            generated=generated,
            control=control,
            obs={"perturbation": names, "cell_type": np.full(len(names), "cell")},
            control_obs={"cell_type": np.full(len(control), "cell")},
            genes=[f"GENE{i}" for i in range(GENES)],
            space=pca,
        )
        exports.write_embedded(
            folder,
            expression=real,
            embeddings={"X_pca": pca.transform(real), "X_c2s": real[:, :20]},
            obs={"cell_type": names, "batch": np.full(len(names), "one")},
            genes=[f"GENE{i}" for i in range(GENES)],
        )
        peer = Peer("_external_peer", python=arguments.python)
        theirs = {"versions": peer("about"), "pearson_delta": {}, "silhouette": peer("scib", folder=folder)}
        theirs["pearson_delta"] = {p: v["pearson_delta"] for p, v in peer("cell_eval", folder=folder).items()}
        peer.close()
    ours = {
        "pearson_delta": {
            p: metrics.delta_correlation(real[names == p], generated[names == p], control).pearson
            for p in np.unique(names).tolist()
        },
        "silhouette": {
            key: (1 + metrics.silhouette(space, names)) / 2
            for key, space in (("X_c2s", real[:, :20]), ("X_pca", pca.transform(real)))
        },
    }
    gaps = {key: max(abs(ours[key][x] - theirs[key][x]) for x in ours[key]) for key in ours}
    print(json.dumps({"ours": ours, "theirs": theirs, "greatest_difference": gaps}, indent=1))


if __name__ == "__main__":
    main()
