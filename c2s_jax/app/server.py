"""Serving the page, to this machine unless told otherwise."""

from pathlib import Path
from typing import Any

import panel as pn

from c2s_jax.app.page import Page
from c2s_jax.inference import Model

MOST_UPLOAD = 1 << 30  # bytes of a message
THREADS = 4


def serve(model: Model, *, host: str = "127.0.0.1", port: int = 5006, show: bool = True, threaded: bool = False) -> Any:
    """Serve a model's page.

    Every visitor has cells of their own; requests to the model wait for each other, pages stay alive meanwhile.

    Parameters
    ----------
    host
        Address to listen at; the default lets nobody in from other machines.
    show
        Open a browser.
    threaded
        Return at once, with the server's thread.
    """
    pn.extension(nthreads=THREADS)
    title = f"c2s · {Path(model.source).name or 'model'}"
    origins = [f"{name}:{port}" for name in sorted({host, "localhost", "127.0.0.1"})]
    options: dict[str, Any] = dict(title=title, show=show, threaded=threaded, start=True, verbose=not threaded)
    options |= dict(websocket_max_message_size=MOST_UPLOAD, websocket_origin=origins)
    return pn.serve(lambda: Page(model).view(title), address=host, port=port, **options)
