"""A run of a few steps on real cells, and the cells."""

from pathlib import Path

import anndata as ad
import jax
import pytest
import scanpy as sc
from ml_collections import ConfigDict

from c2s_jax import inference, train
from c2s_jax.config import base, mixture_task
from c2s_jax.parallel import make_mesh

SHORT = dict(min_genes=8, max_genes=24)


@pytest.fixture(scope="session")
def run(bundle, tmp_path_factory) -> Path:
    """Workdir of a run of four steps, on one device."""
    config = base()
    config.name = "tiny"
    config.update(steps=4, batch_size=8, log_every=4, validate_every=4, validation_rows=8)
    config.model.update(
        vocab_size=0,
        embed_dim=32,
        ffw_dim=48,
        num_layers=4,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16.0,
        sliding_window=32,
        attention_chunk=64,
    )
    config.optimizer.update(learning_rate=3e-2, warmup_steps=1)
    config.data.update(corpus=bundle.corpus, tokenizer=bundle.tokenizer, seq_len=128, rows_per_block=8)
    config.data.tasks = ("cell_type_annotation", "cell_type_conditioned_generation")
    config.data.mixture = ConfigDict({name: mixture_task(name, **SHORT) for name in config.data.tasks})
    workdir = tmp_path_factory.mktemp("inference") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))
        train.train(config, str(workdir))
    return workdir


@pytest.fixture(scope="session")
def model(run) -> inference.Model:
    """The run's model."""
    return inference.load(run)


@pytest.fixture(scope="session")
def _pbmc() -> ad.AnnData:
    adata = sc.datasets.pbmc68k_reduced()
    return ad.AnnData(adata.raw.X, obs=adata.obs, var=adata.raw.var)


@pytest.fixture
def pbmc(_pbmc) -> ad.AnnData:
    """40 blood cells with log-normalised expression, a copy to write into."""
    return _pbmc[::18].copy()
