"""The page, in a real browser."""

import contextlib
import os
import re
import shutil
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

pytest.importorskip("panel")

from c2s_jax.app import serve
from c2s_jax.app.session import Session

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 180_000  # ms


def test_sessions_do_not_mix(model, pbmc):
    """Visitors at once: each gets the results of their own cells, and those alone."""
    sessions = [Session(model) for _ in range(3)]
    for i, session in enumerate(sessions):
        session.adata = pbmc[i * 8 : i * 8 + 8].copy()
    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(lambda s: s.annotate(["CD19+ B", "Dendritic"]), sessions))
    assert all(text.startswith("Annotated 8 cells") for text in told)
    model.annotate(pbmc, ["CD19+ B", "Dendritic"], progress=False)
    whole = pbmc.obsm["c2s_cell_type_probabilities"]
    for i, session in enumerate(sessions):
        found = session.cells.obsm["c2s_cell_type_probabilities"]
        np.testing.assert_allclose(found, whole[i * 8 : i * 8 + 8], atol=1e-5)


def test_what_a_visitor_may_do_wrong(model):
    session = Session(model)
    with pytest.raises(ValueError, match="choose cells first"):
        session.annotate([])
    with pytest.raises(ValueError, match=r"notes\.txt cannot be read as \.h5ad"):
        session.take_file(b"no HDF5", "notes.txt")
    with pytest.raises(ValueError, match="no cells were generated"):
        session.download_generated()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def address(model):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serve(model, port=port, show=False, threaded=True)
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.stop()


def test_from_cells_to_a_file(browser, address, pbmc, tmp_path):
    """Upload, see, annotate, generate, ask, download; a message where something is wrong."""
    pbmc.write_h5ad(tmp_path / "mine.h5ad")
    (tmp_path / "broken.h5ad").write_text("no HDF5")
    page = browser.new_page(viewport={"width": 1360, "height": 860})
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    button = lambda name: page.get_by_role("button", name=name, exact=True)  # noqa: E731
    button("Annotate").click()
    page.get_by_text("choose cells first").wait_for()
    page.locator("input[type=file]").set_input_files(tmp_path / "broken.h5ad")
    page.get_by_text("broken.h5ad cannot be read").wait_for()
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.h5ad")
    page.get_by_text("mine.h5ad: 39 cells").wait_for()
    button("Annotate").click()
    page.get_by_text("Annotated 39 cells").wait_for()
    assert page.locator("canvas").count() > 0
    if where := os.environ.get("C2S_KEEP_SCREENSHOT"):
        page.wait_for_timeout(1500)
        page.screenshot(path=where)
    with page.expect_download() as download:
        page.get_by_text("Download cells with results").click()
    download.value.save_as(tmp_path / "result.h5ad")
    result = ad.read_h5ad(tmp_path / "result.h5ad")
    assert result.obs["c2s_cell_type"].notna().all()
    assert "X_umap" in result.obsm
    page.get_by_text("Generate", exact=True).first.click()
    button("Generate").click()
    page.get_by_text(re.compile(r"Made 10 cells of type .*, of 24 genes each")).wait_for()
    with page.expect_download() as download:
        page.get_by_text("Download generated cells").click()
    download.value.save_as(tmp_path / "generated.h5ad")
    made = ad.read_h5ad(tmp_path / "generated.h5ad")
    assert made.n_obs == 10
    assert (np.diff(made.X.indptr) == 24).all()
    page.get_by_text("Ask", exact=True).first.click()
    button("Ask").click()
    page.get_by_text(re.compile("Asked about 5 cells|show fewer cells")).wait_for()  # it reads 128 tokens only
    page.close()


def test_it_listens_to_this_machine_only(address):
    assert address.startswith("http://127.0.0.1:")
    port = int(address.rsplit(":", 1)[1])
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if f":{port:04X} " in line]
    assert {place.split(":")[0] for place in listening if place.endswith(f":{port:04X}")} == {"0100007F"}
    with urllib.request.urlopen(address) as answer:
        assert answer.status == 200
