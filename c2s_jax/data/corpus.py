"""Reader of a corpus on disk (written by `data_pipeline.build`)."""

import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from c2s_jax.cells.rank_expression import RankExpression
from c2s_jax.cells.vocabulary import GeneVocabulary
from c2s_jax.data import corpus_format as fmt
from c2s_jax.data.cell_source import Cell, CellBlock, CellSource
from c2s_jax.data.corpus_format import ADVICE, CorpusError

__all__ = ["Cell", "CellBlock", "CellSource", "Corpus", "CorpusError", "GeneSet", "Interaction", "Question"]

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Question:
    """A question about a data set and its answer.

    Attributes
    ----------
    dataset : int
        Index into `Corpus.datasets`.
    question, answer : str
    split : str
    """

    dataset: int
    question: str
    answer: str
    split: str


@dataclass(frozen=True, eq=False)
class GeneSet:
    """A named set of genes.

    Attributes
    ----------
    name, description, source : str
    genes : int32 [N]
        Corpus gene ids, in the order of the source.
    split : str
    """

    name: str
    description: str
    source: str
    genes: NDArray[np.int32]
    split: str


@dataclass(frozen=True, eq=False)
class Interaction:
    """Two genes, or complexes of several, whose products interact.

    Attributes
    ----------
    source : str
    kind : str
        "ligand-receptor", "physical" …
    a, b : int32 [N]
        Corpus gene ids of each partner.
    """

    source: str
    kind: str
    a: NDArray[np.int32]
    b: NDArray[np.int32]


class Corpus:
    """A corpus directory.

    Opening reads the manifest and compares every file's size with it; records are read on demand.

    Parameters
    ----------
    path : path-like

    Attributes
    ----------
    splits : tuple of str
    genes : GeneVocabulary
    datasets : list of dict
        One a data set: name, organism, rank→expression parameters, provenance …
    questions : list of Question
    gene_sets : list of GeneSet
    interactions : list of Interaction

    Raises
    ------
    FileNotFoundError
        If there is no such directory.
    CorpusError
        If it is no finished corpus, has another format version, or a file is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        _check_sizes(self.path, self.manifest["files"])
        self.splits: tuple[str, ...] = tuple(self.manifest["shards"])

    @cached_property
    def genes(self) -> GeneVocabulary:
        return GeneVocabulary.load(self.path / fmt.GENES_FILE)

    @cached_property
    def datasets(self) -> list[dict[str, Any]]:
        return self._lines(fmt.DATASETS_FILE)

    @cached_property
    def rank_expressions(self) -> list[RankExpression]:
        """The rank→expression line of each data set."""
        return [RankExpression(**d["rank_expression"]) for d in self.datasets]

    @cached_property
    def questions(self) -> list[Question]:
        return [Question(**line) for line in self._lines(fmt.QUESTIONS_FILE)]

    @cached_property
    def gene_sets(self) -> list[GeneSet]:
        return [GeneSet(**line | {"genes": _ids(line["genes"])}) for line in self._lines(fmt.GENE_SETS_FILE)]

    @cached_property
    def interactions(self) -> list[Interaction]:
        lines = self._lines(fmt.INTERACTIONS_FILE)
        return [Interaction(**line | {"a": _ids(line["a"]), "b": _ids(line["b"])}) for line in lines]

    def _lines(self, name: str) -> list[dict[str, Any]]:
        if name not in self.manifest["files"]:
            return []
        text = (self.path / name).read_text("utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def cells(self, split: str) -> CellSource:
        """The cells of one split.

        Raises
        ------
        KeyError
            If there is no such split.
        """
        if split not in self.splits:
            raise KeyError(f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}")
        return CellSource(self.path, split, self.manifest["shards"][split])

    def verify(self, *, progress: bool = False) -> None:
        """Read every file and compare its checksum with the manifest.

        Raises
        ------
        CorpusError
            Naming the files whose content is not what was written.
        """
        files = self.manifest["files"]
        total = sum(entry["bytes"] for entry in files.values())
        with tqdm(total=total, unit="B", unit_scale=True, disable=not progress, desc="verify") as bar:
            damaged = [name for name, entry in files.items() if crc32(self.path / name, bar) != entry["crc32"]]
        if damaged:
            raise CorpusError(f"{self.path} holds damaged files: {', '.join(damaged)}. {ADVICE}")

    def __repr__(self) -> str:
        records = ", ".join(f"{name} {n}" for name, n in self.manifest["records"].items())
        return f"Corpus({str(self.path)!r}: {records} cells)"


def crc32(path: Path, bar: "tqdm[Any] | None" = None) -> str:
    """CRC-32 of a file's content, eight hexadecimal digits."""
    value = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
            if bar is not None:
                bar.update(len(chunk))
    return f"{value:08x}"


def _ids(genes: list[int]) -> NDArray[np.int32]:
    return np.array(genes, dtype=np.int32)


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no corpus at {folder}: build one with `python -m data_pipeline.build`")
    path = folder / fmt.MANIFEST_FILE
    if not path.is_file():
        raise CorpusError(f"{folder} is not a finished corpus: it has no {fmt.MANIFEST_FILE}. {ADVICE}")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        version, shards, files = manifest["version"], manifest["shards"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path} is damaged ({error!r}). {ADVICE}") from None
    if str(version).split(".")[0] != fmt.FORMAT_VERSION.split(".")[0]:
        raise CorpusError(
            f"{folder} has corpus format {version}; this version of c2s_jax reads "
            f"{fmt.FORMAT_VERSION}. Build it anew (python -m data_pipeline.build)."
        )
    missing = [
        name
        for split, lengths in shards.items()
        for name in (fmt.shard_name(split, i, len(lengths)) for i in range(len(lengths)))
        if name not in files
    ]
    if missing:
        raise CorpusError(f"{path} does not list {missing[0]}. {ADVICE}")
    return manifest


def _check_sizes(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    for name, entry in files.items():
        path, expected = folder / name, entry["bytes"]
        if not path.is_file():
            raise CorpusError(f"{path} is missing ({expected} bytes expected). {ADVICE}")
        found = path.stat().st_size
        if found != expected:
            raise CorpusError(f"{path} has {found} bytes, {expected} were written. {ADVICE}")
