"""Results into ``.h5ad`` files, whole or not at all."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import anndata as ad
import h5py  # type: ignore[import-untyped]
from anndata.io import write_elem


def check_target(path: str | Path) -> Path:
    """A file that can be written, or say why not before anything is computed.

    Raises
    ------
    ValueError
        If it is not named as one.
    FileNotFoundError
        If its folder does not exist.
    """
    path = Path(path)
    if path.suffix != ".h5ad":
        raise ValueError(f"the output {path} must end in .h5ad")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} for the output")
    return path


def write_new(adata: ad.AnnData, path: str | Path) -> None:
    """Write an AnnData; what had the name before stays until the new file is whole."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        adata.write_h5ad(partial, compression="gzip")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_annotated(source: str | Path, adata: ad.AnnData, path: str | Path, obsm: Iterable[str] = ()) -> None:
    """Write the file that an AnnData was read from, with the ``obs`` and ``uns`` that it has now.

    The matrices are copied as a file and never read, whatever their size.

    Parameters
    ----------
    source
        What ``adata`` was read from.
    path
        May be ``source`` itself.
    obsm
        New or changed entries of ``obsm``.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        shutil.copyfile(source, partial)
        with h5py.File(partial, "r+") as file:
            write_elem(file, "obs", adata.obs)
            write_elem(file, "uns", dict(adata.uns))
            for key in obsm:
                write_elem(file, f"obsm/{key}", adata.obsm[key])
            file.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
