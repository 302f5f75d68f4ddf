"""Cells from files of several formats, as tables that are read a block of rows at a time."""

from .aliases import read_aliases
from .errors import ReadError
from .formats import FORMATS, guess_format, open_cells
from .naming import GeneNaming
from .soma import SomaOptions
from .table import CellTable

__all__ = [
    "FORMATS",
    "CellTable",
    "GeneNaming",
    "ReadError",
    "SomaOptions",
    "guess_format",
    "open_cells",
    "read_aliases",
]
