"""The compiler flags that the launchers start a TPU run with, for compiling as the run will."""

import os
from pathlib import Path

VARIABLE = "LIBTPU_INIT_ARGS"
FILE = Path(__file__).parents[2] / "launch" / "xla_flags.txt"
"""Beside the package in a working tree; an installed package has none."""


def bundle(file: Path, chip: str, slices: int) -> list[str]:
    """Flags of a TPU slice, as ``launch/xla_flags.sh`` gives them to a run on it.

    Parameters
    ----------
    file
        Lines of ``chips variable value``; those of "tpu", of ``chip`` and, for several slices, of "multislice" count.

    Raises
    ------
    ValueError
        A line that is none, with its number.
    """
    kinds = {"tpu", chip} | ({"multislice"} if slices > 1 else set())
    flags = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 3:
            raise ValueError(f"{file}, line {number}: {line!r} is not `chips variable value`")
        if words[0] in kinds and words[1] == VARIABLE:
            flags.append(words[2])
    return flags


def use(flags: list[str]) -> None:
    """Give them to the compiler, which reads them when it is loaded; what the environment already holds wins."""
    own = os.environ.get(VARIABLE, "").split()
    os.environ[VARIABLE] = " ".join([*flags, *own])
