"""Damaged files of every format: an error that names the file, or cells of the right shape."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.readers import ReadError, hdf5, open_cells
from tests.data_pipeline import cell_files as files

FORMATS = {
    "h5ad": (files.h5ad, None),
    "h5ad by columns": (files.h5ad, "columns"),
    "zarr": (files.zarr, None),
    "zarr by columns": (files.zarr, "columns"),
    "10x_h5": (files.tenx_v3, None),
    "10x_h5 of version 2": (files.tenx_v2, None),
    "10x_mtx": (files.mtx, None),
    "soma": (files.soma, None),
}
DAMAGE = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True)),
    st.tuples(st.just("flip"), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1)),
    st.tuples(st.just("hole"), st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 300))),
    st.tuples(st.just("missing"), st.none()),
)


def damage(path: Path, kind: str, how) -> None:
    content = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
        return
    if kind == "cut":
        del content[int(how * len(content)) :]
    elif kind == "hole":
        start = int(how[0] * len(content))
        content[start : start + how[1]] = bytes(len(content[start : start + how[1]]))
    else:
        for place, bits in how:
            content[int(place * len(content))] ^= bits
    path.write_bytes(content)


def read(path: Path, layer: str | None) -> str | None:
    """Read everything; the message of the error, if there is one."""
    try:
        with open_cells(path, layer=layer) as table:
            assert table.rows(0, table.n_cells).shape == (table.n_cells, len(table.symbols))
            assert len(table.var) == len(table.symbols)
            for key in table.spaces:
                assert len(table.coordinates(key)) == table.n_cells
    except (ValueError, OSError) as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp("whole")) for name, (write, _) in FORMATS.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_an_error_or_harmless(name, originals, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(hdf5, "_SECONDS", 2)
    original, layer = originals[name], FORMATS[name][1]

    @settings(max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(DAMAGE, st.data())
    def check(what, data):
        folder = tmp_path_factory.mktemp("damaged")
        path = folder / original.name
        (shutil.copytree if original.is_dir() else shutil.copy)(original, path)
        parts = sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size) if path.is_dir() else [path]
        damage(data.draw(st.sampled_from(parts)), *what)
        said = read(path, layer)
        assert said is None or str(folder) in said
        shutil.rmtree(folder)

    check()


def test_hdf5_that_never_comes_to_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "_SECONDS", 1)
    path = files.h5ad(tmp_path)
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL") + 16
    content[heap : heap + 200] = bytes(200)  # texts of length 0 at their own place, for ever
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"cells\.h5ad is damaged: the HDF5 library does not come to an end on '"):
        open_cells(path)


def test_chunks_that_are_missing_are_not_zeros(tmp_path):
    path = files.zarr(tmp_path)
    chunk = next(p for p in (path / "X" / "data").rglob("*") if p.is_file() and not p.name.startswith((".", "zarr")))
    chunk.unlink()
    with pytest.raises(ReadError, match="X/data lacks 1 of its 1 chunks"):
        open_cells(path)
