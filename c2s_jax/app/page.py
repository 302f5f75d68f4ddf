"""The page: widgets, and what happens when they are used."""

from collections.abc import Callable
from typing import Any

import panel as pn

from c2s_jax.app import plots
from c2s_jax.app.session import Session
from c2s_jax.inference import Model

MOST_GENERATED = 200
ACCENT = "#1f5f93"


class Page:
    """One visitor's page."""

    def __init__(self, model: Model):
        self.session = Session(model)
        types = list(model.card.values.get("cell_type", ())) if model.card else []
        self.status = pn.pane.Alert("Choose cells to begin.", alert_type="light", margin=(4, 8))
        self.upload = pn.widgets.FileInput(accept=".h5ad", multiple=False, sizing_mode="stretch_width")
        self.colour = pn.widgets.Select(name="Colour by", options=[], disabled=True)
        self.labels = pn.widgets.TextAreaInput(
            name="Candidate types, one a line", placeholder="\n".join(types) or "B cell\nT cell", height=110
        )
        self.map = pn.pane.Bokeh(sizing_mode="stretch_both", min_height=460)
        kind = pn.widgets.AutocompleteInput if types else pn.widgets.TextInput
        options: dict[str, Any] = dict(options=types, restrict=False, min_characters=0) if types else {}
        self.cell_type = kind(name="Cell type", value=types[0] if types else "B cell", **options)
        self.n = pn.widgets.IntSlider(name="Cells", start=1, end=MOST_GENERATED, value=10)
        self.bars = pn.pane.Bokeh(sizing_mode="stretch_width")
        self.question = pn.widgets.TextAreaInput(
            name="Question", value="Which tissue are these cells from?", max_length=4000, height=90
        )
        self.n_cells = pn.widgets.IntSlider(name="Cells shown to the model", start=1, end=20, value=5)
        self.answer = pn.pane.Markdown("", sizing_mode="stretch_width")
        self.file = self._download(self.session.download, "c2s_cells.h5ad", "Download cells with results")
        self.new_file = self._download(
            self.session.download_generated, "c2s_generated.h5ad", "Download generated cells"
        )
        self.upload.param.watch(self._uploaded, "value")
        self.colour.param.watch(lambda event: self._draw(), "value")

    def view(self, title: str) -> Any:
        """The page as a whole."""
        cells = pn.Column(
            "### 1 · Cells",
            self._button("Take 700 blood cells", self._bundled, "default"),
            pn.pane.HTML("<small>or upload an <b>.h5ad</b> file</small>"),
            self.upload,
            "### 2 · What are they?",
            self.labels,
            self._button("Annotate", self._annotate),
            self._button("Embed and map", self._embed, "default"),
            "### 3 · Keep the results",
            self.file,
        )
        made = pn.Column(
            pn.Row(self.cell_type, self.n, self._button("Generate", self._generate), self.new_file),
            self.bars,
            sizing_mode="stretch_width",
        )
        row = pn.Row(self.question, self.n_cells, self._button("Ask", self._ask))
        asked = pn.Column(row, self.answer, sizing_mode="stretch_width")
        tabs = pn.Tabs(
            ("Map", pn.Column(self.colour, self.map, sizing_mode="stretch_both")),
            ("Generate", made),
            ("Ask", asked),
            sizing_mode="stretch_both",
        )
        return pn.template.FastListTemplate(
            title=title,
            sidebar=[cells],
            main=[pn.Column(self.status, tabs, sizing_mode="stretch_both", min_height=640)],
            accent=ACCENT,
            theme_toggle=False,
            sidebar_width=310,
        )

    def _button(self, name: str, act: Callable[[], str], kind: str = "primary") -> Any:
        button = pn.widgets.Button(name=name, button_type=kind, margin=(8, 8), min_width=120)
        button.on_click(lambda event: self._do(button, act))
        return button

    def _download(self, callback: Callable[[], Any], filename: str, label: str) -> Any:
        return pn.widgets.FileDownload(
            callback=callback, filename=filename, label=label, disabled=True, button_type="success", margin=(8, 8)
        )

    def _do(self, button: Any, act: Callable[[], str]) -> None:
        """Act, with signs of life, and tell what came of it."""
        button.disabled = True
        self.status.param.update(object="At work …", alert_type="light")
        try:
            self.status.param.update(object=act(), alert_type="success")
        except (ValueError, TypeError, OSError, KeyError) as error:
            self.status.param.update(object=str(error), alert_type="danger")
        finally:
            button.disabled = False

    def _uploaded(self, event: Any) -> None:
        if event.new:
            self._do(self.upload, lambda: self._show(self.session.take_file(event.new, self.upload.filename)))

    def _bundled(self) -> str:
        return self._show(self.session.take_bundled())

    def _annotate(self) -> str:
        labels = [line.strip() for line in self.labels.value.splitlines() if line.strip()]
        return self._show(self.session.annotate(labels), "c2s_cell_type")

    def _embed(self) -> str:
        return self._show(self.session.embed())

    def _generate(self) -> str:
        told = self.session.generate(self.cell_type.value.strip(), self.n.value)
        assert self.session.generated is not None
        self.bars.object, self.new_file.disabled = plots.gene_bars(self.session.generated), False
        return told

    def _ask(self) -> str:
        answer, told = self.session.ask(self.question.value, self.n_cells.value)
        self.answer.object = "> " + answer.replace("\n", "\n> ")
        return told

    def _show(self, told: str, colour: str | None = None) -> str:
        """Draw the cells as they are now."""
        obs = self.session.cells.obs
        columns = [str(column) for column in obs.columns]
        wanted = colour or (self.colour.value if self.colour.value in columns else None)
        first = next(
            (c for c in columns if self.session.cells.obs[c].dtype == "category"), columns[0] if columns else None
        )
        self.colour.param.update(options=columns, value=wanted or first, disabled=not columns)
        self.file.disabled = False
        self._draw()
        return told

    def _draw(self) -> None:
        if self.session.adata is not None and self.colour.value:
            self.map.object = plots.cell_map(self.session.adata, self.colour.value)
