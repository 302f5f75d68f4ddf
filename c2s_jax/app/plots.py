"""Pictures of the page."""

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from bokeh.models import ColumnDataSource, HoverTool, Legend
from bokeh.palettes import Category20, Viridis256
from bokeh.plotting import figure
from bokeh.transform import linear_cmap

MOST_COLOURS = 20
GREY = "#c8ccd2"


def cell_map(adata: ad.AnnData, colour: str) -> Any:
    """The cells' map, coloured by a column of ``obs``."""
    xy = adata.obsm["X_umap"]
    values = adata.obs[colour]
    plot = figure(
        sizing_mode="stretch_both", min_height=440, tools="pan,wheel_zoom,box_zoom,reset,save", toolbar_location="right"
    )
    plot.title.text, plot.title.text_font_size = colour.replace("c2s_", "").replace("_", " "), "15px"
    size = float(np.clip(140 / np.sqrt(len(xy)), 2, 9))
    if pd.api.types.is_numeric_dtype(values):
        data = ColumnDataSource(dict(x=xy[:, 0], y=xy[:, 1], value=values, name=adata.obs_names))
        scale = linear_cmap("value", Viridis256, float(values.min()), float(values.max()))
        dots = plot.scatter("x", "y", source=data, color=scale, size=size, alpha=0.8, line_color=None)
        plot.add_layout(dots.construct_color_bar(width=10), "right")
    else:
        _by_category(plot, xy, values, adata.obs_names, size)
    plot.add_tools(HoverTool(tooltips=[("cell", "@name"), (colour, "@value")]))
    for axis in plot.axis:
        axis.major_label_text_font_size, axis.major_tick_line_color, axis.minor_tick_line_color = "0pt", None, None
        axis.axis_line_color = "#d0d4da"
    plot.xaxis.axis_label, plot.yaxis.axis_label = "UMAP 1", "UMAP 2"
    plot.grid.visible, plot.outline_line_color = False, None
    return plot


def _by_category(plot: Any, xy: np.ndarray, values: pd.Series, names: pd.Index, size: float) -> None:
    counts = values.astype("object").fillna("no value").value_counts()
    shown = list(counts.index[:MOST_COLOURS])
    text = values.astype("object").fillna("no value").to_numpy()
    items = []
    for i, name in enumerate(shown + (["others"] if len(counts) > MOST_COLOURS else [])):
        inside = text == name if name in shown else ~np.isin(text, shown)
        data = ColumnDataSource(dict(x=xy[inside, 0], y=xy[inside, 1], value=text[inside], name=names[inside]))
        colour = GREY if name in ("others", "no value") else Category20[20][(2 * i) % 20 + (2 * i) // 20]
        dots = plot.scatter("x", "y", source=data, color=colour, size=size, alpha=0.8, line_color=None)
        items.append((f"{name} ({int(inside.sum())})", [dots]))
    legend = Legend(items=items, border_line_color=None, label_text_font_size="12px", spacing=0, click_policy="hide")
    plot.add_layout(legend, "right")


def gene_bars(adata: ad.AnnData, n: int = 20) -> Any:
    """Mean expression of the genes that generated cells express most."""
    mean = np.asarray(adata.X.mean(axis=0)).ravel()
    top = np.argsort(-mean, kind="stable")[:n]
    names = [str(adata.var_names[i]) for i in top]
    plot = figure(x_range=names, sizing_mode="stretch_width", height=280, tools="", toolbar_location=None)
    plot.vbar(x=names, top=mean[top], width=0.75, color="#2a78b5", line_color=None)
    plot.title.text, plot.title.text_font_size = "genes expressed most, mean log10(1 + expression)", "13px"
    plot.xaxis.major_label_orientation = 0.9
    plot.xgrid.visible, plot.outline_line_color, plot.y_range.start = False, None, 0
    return plot
