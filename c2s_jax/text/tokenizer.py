"""What the package asks of a tokenizer, and what it refuses."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

# Pieces after which a released Gemma checkpoint has finished its answer.
STOP_PIECES = ("<end_of_turn>", "<ctrl100>")

# Whatever a tokenizer does to this text it must undo, and these parts it must cut as it cuts them joined:
# segments of a prompt are tokenised apart.
_PROBE = " a  b \n\nC, D-1.é²ﬁ  "
_PARTS = ("Cell:", " a", "\n", "B-1.", " c.")


@runtime_checkable
class Tokenizer(Protocol):
    """What the rest of the package asks of a tokenizer.

    Text never gives a control id: "<eos>" or "<|endoftext|>" written in an abstract is cut into ordinary pieces.
    Turn markers ("<start_of_turn>", "<end_of_turn>") are pieces like others, so that prompts can hold them.

    Attributes
    ----------
    vocab_size : int
        Number of pieces; ids are 0 … vocab_size − 1. A checkpoint's embedding may have more rows than that (Pythia:
        50,304 for 50,277 pieces); how many is the model's matter, and no text gives the ids beyond.
    pad_id, eos_id : int
        Special ids. They may be the same.
    bos_id : int or None
        Id that begins every sequence; None where sequences begin with their text, as in GPT-NeoX and Pythia.
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
    def bos_id(self) -> int | None: ...
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


def read_bytes(path: Path) -> bytes:
    """Content of a tokenizer's file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"tokenizer model not found: {path}")
    return path.read_bytes()


def settings_beside(path: Path) -> dict[str, Any]:
    """Settings in the Hugging Face files that lie beside a tokenizer's file; the later of these three wins.

    Raises
    ------
    ValueError
        If one of them is not a JSON object.
    """
    settings: dict[str, Any] = {}
    for name in ("config.json", "special_tokens_map.json", "tokenizer_config.json"):
        file = path.parent / name
        if file.is_file():
            content = read_json(file)
            settings |= {key: value for key, value in content.items() if value is not None}
    return settings


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def checked_ids(ids: Iterable[int], vocab_size: int) -> NDArray[np.int64]:
    """`ids` as an array [N].

    Raises
    ------
    ValueError
        If an id is outside the vocabulary.
    """
    array = np.asarray(ids if isinstance(ids, Sequence | np.ndarray) else list(ids), dtype=np.int64).ravel()
    bad = (array < 0) | (array >= vocab_size)
    if bad.any():
        raise ValueError(f"token id {array[bad][0]} at position {bad.argmax()} is outside 0 … {vocab_size - 1}")
    return array


def refuse_changed_text(tokenizer: Tokenizer, path: Path) -> None:
    """Refuse a tokenizer whose ids of a text are not those of its segments, one after the other.

    Raises
    ------
    ValueError
        If text does not survive encoding and decoding, or a space is put before it.
    """
    decoded = tokenizer.decode(tokenizer.encode(_PROBE))
    apart = [token for part in _PARTS for token in tokenizer.encode(part)]
    if decoded != _PROBE or apart != tokenizer.encode("".join(_PARTS)):
        raise ValueError(
            f"{path} changes text: {_PROBE!r} comes back as {decoded!r}, or the parts {_PARTS!r} are not cut as the "
            "whole is. Prompts are tokenised segment by segment, which needs byte fallback or byte level, no "
            "normalisation but NFC, no dummy prefix and no merging of spaces."
        )
