"""Figures are pictures of what they were given; the page is whole, escaped and stands alone."""

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from c2s_jax import report
from c2s_jax.report import style
from c2s_jax.report.tables import MEASURES

RNG = np.random.default_rng(0)
LABELS = np.repeat(["B cell", "T cell", "NK <b>"], [12, 20, 8])
CELLS = RNG.normal(size=(40, 6)) + 4 * (LABELS == "T cell")[:, None]
FIT = SimpleNamespace(slope=-0.5, intercept=1.5, r2=0.9, r2_all=0.8)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The matplotlib figures behind the PNGs, to read what was drawn."""
    figures: list[Any] = []
    made = style.Canvas

    def keep(*args: Any, **kwargs: Any) -> Any:
        figures.append(made(*args, **kwargs))
        return figures[-1]

    monkeypatch.setattr(style, "Canvas", keep)
    return figures


def texts(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.texts]


def ink(figure: report.Figure) -> float:
    """Share of pixels that are not white."""
    return float((np.asarray(Image.open(io.BytesIO(figure.png)).convert("L")) < 250).mean())


def run_log(path: Path) -> Path:
    lines = []
    for step in range(1, 41):
        line = {
            "step": step,
            "train/loss": 5 / step,
            "train/learning_rate": 1e-3,
            "train/loss/annotate": 1 / step,
        }
        lines.append(json.dumps({**line, **({"validation/loss": 6 / step} if step % 10 == 0 else {})}))
    path.write_text("\n".join([*lines, json.dumps({"step": 40, "train/loss": 9.0})]) + "\n")
    return path


def test_read_metrics_takes_the_later_of_two_lines(tmp_path: Path) -> None:
    series = report.read_metrics(run_log(tmp_path / "metrics.jsonl"))
    steps, values = series["train/loss"]
    assert steps.tolist() == list(range(1, 41))
    assert values[-1] == 9.0
    assert series["validation/loss"][0].tolist() == [10, 20, 30, 40]
    (tmp_path / "bad.jsonl").write_text('{"step": 1}\n{"loss": 2}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 2"):
        report.read_metrics(tmp_path / "bad.jsonl")


def test_learning_curves(tmp_path: Path, drawn: list[Any]) -> None:
    figure = report.learning_curves(report.read_metrics(run_log(tmp_path / "metrics.jsonl")))
    assert "40 optimizer steps" in figure.caption
    assert "validation" in figure.caption
    assert [axis.get_title("left") for axis in drawn[0].axes] == [
        "Loss, all tasks",
        "Loss by task",
        "Learning rate",
    ]
    raw = drawn[0].axes[0].lines[0]
    np.testing.assert_array_equal(raw.get_ydata()[:2], [5, 2.5])
    with pytest.raises(ValueError, match="train/loss"):
        report.learning_curves({})


def test_a_smoothed_curve_goes_on_after_nan(drawn: list[Any]) -> None:
    values = np.full(400, 2.0)
    values[[50, *range(200, 240)]] = np.nan
    report.learning_curves({"train/loss": (np.arange(400), values)})
    smooth = drawn[0].axes[0].lines[1].get_ydata()
    there = np.r_[0:205, 235:400]
    np.testing.assert_allclose(smooth[there], 2.0)
    assert np.isnan(smooth[215:225]).all()


def test_a_loss_without_bounds_is_drawn(drawn: list[Any]) -> None:
    steps, values = np.arange(20), np.full(20, 3.0)
    values[7] = np.inf
    task = "cell_type_annotation"
    report.learning_curves({"train/loss": (steps, values), f"train/loss/{task}": (steps, np.full(20, np.nan))})
    assert drawn[0].axes[0].get_ylim()[1] == pytest.approx(3.15)


def test_confusion_matrix_counts_and_unparsed_last(drawn: list[Any]) -> None:
    true = ["b", "b", "b", "a", "c"]
    figure = report.confusion_matrix(true, ["b", "a", "unparsed", "a", "zebra"])
    axis = drawn[0].axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["a", "b", "c", "zebra", "unparsed"]
    share = axis.images[0].get_array()
    np.testing.assert_allclose(share, [[1, 0, 0, 0, 0], [1 / 3, 1 / 3, 0, 0, 1 / 3], [0, 0, 0, 1, 0]])
    assert sorted(texts(axis)) == ["1"] * 5
    assert "n = 5 held-out cells; 2 (40.0%)" in figure.caption
    assert "unparsed" in figure.caption
    assert "unparsed" not in report.confusion_matrix(["a", "b"], ["a", "a"]).caption


def test_reliability_diagram_shows_each_bin(drawn: list[Any]) -> None:
    found = {"edges": [0.0, 0.5, 1.0], "n": [1, 3], "confidence": [0.4, 0.9], "accuracy": [1.0, 0.5]}
    figure = report.reliability_diagram(found | {"ece": 0.45, "brier": 0.3})
    axis, counts = drawn[0].axes
    assert [(bar.get_x(), bar.get_height()) for bar in axis.patches] == [(0.0, 1.0), (0.5, 0.5)]
    assert axis.lines[1].get_xdata().tolist() == [0.4, 0.9]
    assert texts(counts) == ["1", "3"]
    assert "n = 4 answers" in figure.caption
    assert "0.450 (2 bins" in figure.caption
    empty = {"edges": [0.0, 1.0], "n": [0], "confidence": [None], "accuracy": [None], "ece": 0.0, "brier": 0.0}
    with pytest.raises(ValueError, match="at least one answer"):
        report.reliability_diagram(empty)


def test_moments_scatter_is_the_moments(drawn: list[Any]) -> None:
    real, made = RNG.gamma(2, 1, (30, 4)), RNG.gamma(3, 1, (20, 4))
    made[:, 2] += 9
    figure = report.moments_scatter(real, made, ["A", "B", "C", "D"], named=1)
    for axis, statistic in zip(drawn[0].axes, (lambda x: x.mean(0), lambda x: x.var(0, ddof=1))):
        np.testing.assert_allclose(axis.lines[0].get_xdata(), statistic(real))
        np.testing.assert_allclose(axis.lines[0].get_ydata(), statistic(made))
    assert texts(drawn[0].axes[0]) == ["C"]
    r = np.corrcoef(real.mean(0), made.mean(0))[0, 1]
    assert f"of the mean {r:.3f}" in figure.caption
    assert "30 real and 20 generated" in figure.caption
    with pytest.raises(ValueError, match=r"at least 2 cells of 4 genes on each side, got shapes \(1, 4\) and"):
        report.moments_scatter(real[:1], made, ["A", "B", "C", "D"])


def test_embedding_map_has_one_scale_and_one_colour_a_label(drawn: list[Any]) -> None:
    plane, placed, method = report.fit_map(CELLS, CELLS[::-1] + 0.1, "pca")
    figure = report.embedding_map(plane, LABELS, placed, LABELS[::-1], method=method)
    left, right = drawn[0].axes
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    colours = []
    for points in (left.collections[-1], right.collections[-1]):
        pairs = zip(points.get_offsets().tolist(), points.get_facecolors()[:, :3].tolist(), strict=True)
        colours.append({tuple(np.round(xy, 4)): tuple(c) for xy, c in pairs})
    for side, xy, names in ((0, plane, LABELS), (1, placed, LABELS[::-1])):
        for label, shade in style.label_colours(sorted(set(LABELS))).items():
            met = {colours[side][tuple(np.round(point, 4))] for point in xy[names == label].tolist()}
            assert met == {matplotlib.colors.to_rgb(shade)}
    assert len(right.collections) == 2  # real cells in grey below
    assert "40 real held-out and 40 generated" in figure.caption


def test_fit_map() -> None:
    plane, placed, method = report.fit_map(CELLS, CELLS[:5], "pca")
    assert method == "PCA"
    np.testing.assert_allclose(plane[:5], placed, atol=1e-5)
    assert plane[:, 0].var() > plane[:, 1].var()
    assert report.fit_map(CELLS[:10], CELLS[:3])[2] == "PCA"  # too few for UMAP
    with pytest.raises(ValueError, match="tsne"):
        report.fit_map(CELLS, CELLS, "tsne")


def test_umap_separates_types_and_repeats() -> None:
    first, second = (report.fit_map(CELLS, CELLS[:9] + 0.01) for _ in range(2))
    assert first[2] == "UMAP"
    assert (first[0].shape, first[1].shape) == ((40, 2), (9, 2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    # a nearly equal copy of a cell lands beside it
    assert np.linalg.norm(first[0][:9] - first[1], axis=1).max() < np.ptp(first[0], axis=0).max() / 4


def test_rank_expression_draws_the_fit(drawn: list[Any]) -> None:
    ranks = np.tile(np.arange(2000), 3)
    figure = report.rank_expression(ranks, 2.0 - 0.6 * np.log10(1 + ranks), FIT)
    lines = drawn[0].axes[0].lines
    assert [line.get_linestyle() for line in lines] == ["-", "--"]
    np.testing.assert_allclose(lines[0].get_ydata(), [1.5, 0.0])
    assert drawn[0].axes[0].collections[0].get_array().sum() == 6000
    assert "n = 6,000" in figure.caption
    assert "0.900" in figure.caption
    assert "0.800" in figure.caption


def test_per_condition_bars(drawn: list[Any]) -> None:
    generated = {"T cell": 3.0, "B cell": 1.0}
    references = {"real vs real": {"T cell": 0.5}, "shuffled labels": {"T cell": 9.0, "B cell": 8.0}}
    counts = {"T cell": (40, 40), "B cell": (3, 40)}
    figure = report.per_condition_bars(generated, references, n=counts, space="a PCA")
    axis = drawn[0].axes[0]
    assert [bar.get_width() for bar in axis.patches] == [1.0, 3.0]
    assert axis.patches[0].get_alpha() < axis.patches[1].get_alpha()  # few cells are pale
    assert [t.get_text() for t in axis.get_yticklabels()] == ["B cell  (3 | 40)", "T cell  (40 | 40)"]
    np.testing.assert_array_equal(axis.lines[0].get_xdata(), [np.nan, 0.5])
    np.testing.assert_array_equal(axis.lines[1].get_xdata(), [8.0, 9.0])
    assert "generated 2;" in figure.caption
    assert "a PCA" in figure.caption


def test_marker_genes_and_dotplot(drawn: list[Any]) -> None:
    names = [f"G{i}" for i in range(8)]
    expression = RNG.random((40, 8)) * 0.1 * (RNG.random((40, 8)) < 0.3)
    for gene, label in ((6, "B cell"), (2, "NK <b>"), (4, "T cell")):
        expression[label == LABELS, gene] = 1.0
    assert report.marker_genes(expression, LABELS, names, per_label=1) == ["G6", "G2", "G4"]
    report.gene_dotplot(expression, LABELS, 0 * expression, LABELS, names, ["G6", "G4"])
    dots = drawn[0].axes[0].collections[0]
    np.testing.assert_allclose(dots.get_array().reshape(3, 2)[0, 0], 1.0)
    np.testing.assert_allclose(dots.get_sizes().reshape(3, 2)[0, 0], style_area := dots.get_sizes().max())
    assert style_area > 0
    assert drawn[0].axes[1].collections[0].get_sizes().max() == 0
    with pytest.raises(ValueError, match="NOPE"):
        report.gene_dotplot(expression, LABELS, expression, LABELS, names, ["NOPE"])


def test_figures_leave_the_users_matplotlib_alone() -> None:
    with matplotlib.rc_context({"font.size": 17.0, "axes.spines.top": True}):
        before = dict(matplotlib.rcParams)
        figure = report.confusion_matrix(LABELS, LABELS)
        assert dict(matplotlib.rcParams) == before
    assert figure.png.startswith(b"\x89PNG")
    assert 0.02 < ink(figure) < 0.9
    assert figure.inches == pytest.approx(Image.open(io.BytesIO(figure.png)).width / style.DPI)


def test_more_labels_than_colours_stay_apart() -> None:
    labels = [f"type {i}" for i in range(45)]
    assert len({tuple(matplotlib.colors.to_rgb(c)) for c in style.label_colours(labels).values()}) == 45


def test_tables() -> None:
    rows = {"c2s_jax": {"accuracy": 0.8, "macro_f1": float("nan")}, "majority": {"accuracy": 0.34}}
    table = report.annotation_table(rows, n=140)
    assert table.header == ["", "Accuracy ↑", "Macro-F1 ↑"]
    assert table.rows == [["c2s_jax", "80.0%", None], ["majority", "34.0%", None]]
    assert table.best == {(0, 1)}
    lower = {"ours": {"scfid": 2.0}, "theirs": {"scfid": 1.0}, "real vs real": {"scfid": 0.1}}
    assert report.comparison_table(lower, metrics=["scfid"], title="x").best == {(1, 1)}
    lower["ours"]["scfid_ci"] = [1.5, 2.5]
    shown = report.comparison_table(lower, metrics=["scfid"], title="x")
    assert [row[1].replace("\xa0", " ") for row in shown.rows] == ["2.000 (1.500 – 2.500)", "1.000", "0.100"]
    assert "95 % intervals" in shown.caption
    assert "never bold" not in shown.caption
    some = report.comparison_table(lower, metrics=["scfid"], title="x", apart=["theirs"])
    assert some.best == set()  # nothing is left to compare with
    assert set(MEASURES) >= {"valid", "unique", "overlap", "knn_accuracy", "scfid"}


def test_sentences_mark_wrong_words() -> None:
    table = report.sentence_table([("B <i>", "CD79A FOO CD79A LYZ.")], {"CD79A", "LYZ"}, markers={"B <i>": {"LYZ"}})
    html = str(table.rows[0][1])
    assert '<span class="unknown">FOO</span>' in html
    assert '<span class="repeat">CD79A</span>' in html
    assert '<span class="marker">LYZ</span>' in html
    assert table.rows[0][2] == 4


class Page(HTMLParser):
    """Tags left open, addresses asked for, and the text."""

    void = frozenset({"meta", "img", "br", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.void:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_page_stands_alone(tmp_path: Path) -> None:
    table = report.sentence_table([("<script>alert(1)</script>", "<img> CD79A")], {"CD79A"})
    path = report.write_report(
        tmp_path / "out" / "report.html",
        title="Cells & <more>",
        metrics={
            "annotation": {"accuracy": 0.8123, "baselines": {"majority": {"accuracy": None}}},
            "seconds": 12,
        },
        figures=[report.confusion_matrix(LABELS, LABELS)],
        tables=[table],
        notes={"What was tuned": ["the <learning> rate"], "Beware": "few cells"},
        config={"model": {"layers": 4}},
    )
    html = path.read_text()
    page = Page(html)
    assert not page.open
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.tags.count("img") == 1
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert "url(" not in html
    assert "@import" not in html
    for text in ("Cells & <more>", "81.2%", "annotation.baselines.majority.accuracy", "model.layers"):
        assert text in page.words
    for text in ("the <learning> rate", "<script>alert(1)</script>", "few cells"):
        assert text in page.words
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_failed_page_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = report.write_report(tmp_path / "report.html", title="first", metrics={})

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("c2s_jax.report.page.os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        report.write_report(path, title="second", metrics={})
    assert "first" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
