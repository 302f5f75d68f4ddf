"""scGen, as pertpy has it, in an environment of its own: trained on some cells, asked to move others."""

import time
from importlib.metadata import version
from typing import Any

import anndata as ad
import numpy as np
import scvi
from pertpy.tools import Scgen

from benchmarks._peer import serve


def respond(folder: str, seed: int, control: str, epochs: int) -> dict[str, Any]:
    """Train on ``train.h5ad``; for each treatment, what becomes of the cells of ``control.h5ad``: ``<treatment>.npy``.

    Balanced samples of cells give the vector of a treatment, as in the authors' code, and are drawn anew each time.
    Training ends where reconstruction of validation cells gets no better. The default looks at an ELBO in which the
    divergence has its full weight, as it has not in the loss, and ends 25 epochs after the first whatever happens.
    """
    train, controls = (ad.read_h5ad(f"{folder}/{name}.h5ad") for name in ("train", "control"))
    scvi.settings.seed = seed
    began = time.process_time()
    Scgen.setup_anndata(train, batch_key="perturbation", labels_key="cell_type")
    model = Scgen(train)
    model.train(
        max_epochs=epochs,
        batch_size=32,
        early_stopping=True,
        early_stopping_monitor="reconstruction_loss_validation",
        early_stopping_patience=25,
        enable_progress_bar=False,
    )
    for treatment in train.obs["perturbation"].cat.categories.drop(control):
        moved, _ = model.predict(ctrl_key=control, stim_key=treatment, adata_to_predict=controls)
        np.save(f"{folder}/{treatment}.npy", np.asarray(moved.X, np.float32))
    return {"processor_seconds": time.process_time() - began, "epochs": len(model.history["elbo_train"])}


if __name__ == "__main__":
    serve(respond=respond, about=lambda: {name: version(name) for name in ("pertpy", "scvi-tools", "jax", "flax")})
