"""Long runs: files that do not fit in memory, and runs that are stopped."""

import tracemalloc

import anndata as ad
import numpy as np
import pytest

from c2s_jax.inference import streaming
from c2s_jax.inference.parts import Parts
from c2s_jax.inference.reading import CellReader

QUIET = dict(progress=False)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_CELLS", 8)


@pytest.fixture
def counted(model, monkeypatch):
    """Numbers of prompts that went through the model, call by call."""
    calls, pooler = [], model.pooler

    def pool(params, prompts, **options):
        calls.append(len(prompts))
        if calls.count(8) > stop[0]:
            raise KeyboardInterrupt
        return pooler(params, prompts, **options)

    stop = [99]
    monkeypatch.setattr(model, "pooler", pool)
    return calls, stop


def test_a_stopped_run_goes_on(model, pbmc, counted, tmp_path):
    calls, stop = counted
    model.embed(pbmc, **QUIET)
    whole = pbmc.obsm.pop("X_c2s")
    calls.clear()
    stop[0] = 3
    with pytest.raises(KeyboardInterrupt):
        model.embed(pbmc, resume=tmp_path / "parts", **QUIET)
    assert "X_c2s" not in pbmc.obsm
    stop[0], calls[:] = 99, []
    model.embed(pbmc, resume=tmp_path / "parts", **QUIET)
    assert calls == [8, 7], "three blocks were there already"
    np.testing.assert_array_equal(pbmc.obsm["X_c2s"], whole)
    calls.clear()
    model.embed(pbmc, resume=tmp_path / "parts", **QUIET)
    assert not calls


def test_only_what_is_whole_and_fits_counts(model, pbmc, counted, tmp_path):
    """A damaged file, a cell that changed, another setting: what they touch is made again."""
    calls, _ = counted
    parts = tmp_path / "parts"
    model.embed(pbmc, resume=parts, **QUIET)
    whole = pbmc.obsm["X_c2s"]
    path = parts / "00000002.npz"
    for damage in ("flip", "cut", "remove"):
        calls.clear()
        content = bytearray(path.read_bytes())
        content[content.find(whole[16].tobytes())] ^= 1 if damage == "flip" else 0
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
        if damage == "remove":
            path.unlink()
        pbmc.obsm.clear()
        model.embed(pbmc, resume=parts, **QUIET)
        assert calls == [8], damage
        np.testing.assert_array_equal(pbmc.obsm["X_c2s"], whole)
    calls.clear()
    changed = pbmc.copy()
    changed.X = changed.X.toarray()
    changed.X[9, :20] = 0.0
    model.embed(changed, resume=parts, **QUIET)
    assert calls == [8], "of the block with the changed cell"
    calls.clear()
    model.embed(pbmc, layer=2, resume=parts, **QUIET)
    assert calls == [8, 8, 8, 8, 7]


def test_nothing_half_written_is_left(tmp_path):
    parts = Parts(tmp_path)

    class Breaks:
        def __array__(self, *args, **kwargs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.save(0, "key", {"a": np.ones(1000), "b": Breaks()})
    assert parts.load(0, "key") is None
    parts.save(0, "key", {"a": np.arange(3)})
    assert parts.load(0, "other") is None
    assert parts.load(0, "key")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_backed_files(model, pbmc, tmp_path, kind):
    if kind == "dense":
        pbmc.X = pbmc.X.toarray()
    pbmc.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    for adata in (backed, pbmc):
        model.annotate(adata, **QUIET)
        model.embed(adata, **QUIET)
    np.testing.assert_allclose(backed.obsm["X_c2s"], pbmc.obsm["X_c2s"], atol=1e-6)
    assert backed.obs["c2s_cell_type"].tolist() == pbmc.obs["c2s_cell_type"].tolist()
    found = model.embed_groups(backed, "louvain", n_cells=2, **QUIET)
    wanted = model.embed_groups(pbmc, "louvain", n_cells=2, **QUIET)
    np.testing.assert_allclose(found.obsm["X_c2s"], wanted.obsm["X_c2s"], atol=1e-6)


def test_reading_holds_one_block(pbmc, tmp_path):
    """Peak memory does not rise with the number of cells."""

    def peak(times: int) -> int:
        path = tmp_path / f"{times}.h5ad"
        ad.concat([pbmc] * times, index_unique="-").write_h5ad(path)
        backed = ad.read_h5ad(path, backed="r")
        reader = CellReader(backed)
        reader.read(0, 64)  # compiles
        tracemalloc.start()
        for _ in reader.blocks(64):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40) < 1.5 * peak(5)
