"""Tokenizers behind one small protocol."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import sentencepiece

# Pieces after which a released Gemma checkpoint has finished its answer.
STOP_PIECES = ("<end_of_turn>", "<ctrl100>")

# Whatever a tokenizer does to this text it must undo: segments of a prompt are tokenised apart and joined.
_PROBE = " a  b \n\nC, D-1.é²ﬁ  "


@runtime_checkable
class Tokenizer(Protocol):
    """What the rest of the package asks of a tokenizer.

    Attributes
    ----------
    vocab_size : int
        Number of pieces; ids are 0 … vocab_size − 1.
    pad_id, bos_id, eos_id : int
        Special ids.
    stop_ids : tuple of int
        Ids that end a generated answer; `eos_id` is the first.
    fingerprint : str
        SHA-256 (hex) of the model file, stored beside everything that depends on the token ids.
    """

    @property
    def vocab_size(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def stop_ids(self) -> tuple[int, ...]: ...
    @property
    def fingerprint(self) -> str: ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without beginning- or end-of-sequence ids."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each of `texts`."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special ids give nothing."""
        ...

    def piece(self, token_id: int) -> str:
        """The piece with id `token_id` as the vocabulary spells it."""
        ...


class SentencePieceTokenizer:
    """A SentencePiece model (Gemma's, or one trained by `data_pipeline.tokenizer`).

    Parameters
    ----------
    path : path-like
        The ``.model`` file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no SentencePiece model, lacks a special piece, or changes text (a dummy space before
        it, merged spaces, another normalisation), so that segments could not be tokenised apart.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"tokenizer model not found: {self.path}")
        content = self.path.read_bytes()
        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(content)
        except RuntimeError as error:
            raise ValueError(f"{self.path} is not a SentencePiece model ({len(content)} bytes): {error}") from None
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self.vocab_size: int = self._model.vocab_size()
        self.pad_id: int = self._model.pad_id()
        self.bos_id: int = self._model.bos_id()
        self.eos_id: int = self._model.eos_id()
        self._refuse_missing_specials()
        self._refuse_changed_text()
        unknown = self._model.unk_id()
        stops = (self._model.PieceToId(piece) for piece in STOP_PIECES)
        self.stop_ids: tuple[int, ...] = (self.eos_id, *(stop for stop in stops if stop != unknown))

    def _refuse_missing_specials(self) -> None:
        ids = {"<pad>": self.pad_id, "<bos>": self.bos_id, "<eos>": self.eos_id}
        missing = [name for name, value in ids.items() if value < 0]
        if missing:
            raise ValueError(
                f"{self.path} has no {', '.join(missing)} piece. Train one with "
                "`python -m data_pipeline.tokenizer`, or use the tokenizer of the checkpoint."
            )

    def _refuse_changed_text(self) -> None:
        decoded = self.decode(self.encode(_PROBE))
        if decoded != _PROBE or self.piece(self.encode("a")[0]).startswith("▁"):
            raise ValueError(
                f"{self.path} changes text: {_PROBE!r} comes back as {decoded!r}. Prompts are tokenised "
                "segment by segment, which needs byte fallback, identity normalisation, no dummy prefix "
                "and no merging of spaces."
            )

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without beginning- or end-of-sequence ids."""
        return self._model.EncodeAsIds(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each of `texts`."""
        return self._model.Encode(list(texts), out_type=int, num_threads=1)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; padding, beginning and end of sequence give nothing.

        Raises
        ------
        ValueError
            If an id is outside the vocabulary.
        """
        array = np.asarray(ids if isinstance(ids, Sequence | np.ndarray) else list(ids), dtype=np.int64).ravel()
        bad = (array < 0) | (array >= self.vocab_size)
        if bad.any():
            raise ValueError(
                f"token id {array[bad][0]} at position {bad.argmax()} is outside 0 … {self.vocab_size - 1}"
            )
        return self._model.DecodeIds(array.tolist())

    def piece(self, token_id: int) -> str:
        """The piece with id `token_id` as the vocabulary spells it ("▁" is a space)."""
        return self._model.IdToPiece(int(token_id))

    def __repr__(self) -> str:
        return f"SentencePieceTokenizer({str(self.path)!r}, vocab_size={self.vocab_size})"


def load_tokenizer(path: str | Path) -> SentencePieceTokenizer:
    """Load a tokenizer from a model file or from a folder that holds ``tokenizer.model``.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`, or the folder holds no ``tokenizer.model``.
    ValueError
        If the file is of a kind that is not supported.
    """
    path = Path(path)
    if not path.is_dir():
        return SentencePieceTokenizer(path)
    model = path / "tokenizer.model"
    if model.is_file():
        return SentencePieceTokenizer(model)
    found = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    raise FileNotFoundError(f"no tokenizer.model in {path} (it holds {found[:8]})")
