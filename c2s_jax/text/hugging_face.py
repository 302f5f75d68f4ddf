"""Hugging Face ``tokenizer.json`` files: GPT-NeoX's (Pythia) and converted Gemma ones."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from c2s_jax.text.tokenizer import (
    STOP_PIECES,
    checked_ids,
    read_bytes,
    read_json,
    refuse_changed_text,
    settings_beside,
)

# SentencePiece reads these from text; converted files mark them special, which would keep text from giving them.
_TEXT_PIECES = ("<mask>", "<start_of_turn>", *STOP_PIECES)

# Where no file beside the tokenizer names them: GPT-NeoX's special tokens, then Gemma's.
_DEFAULTS = {"eos": ("<|endoftext|>", "<eos>"), "pad": ("<|padding|>", "<pad>"), "bos": ("<bos>",)}


class HuggingFaceTokenizer:
    """A ``tokenizer.json``: byte-level BPE (GPT-NeoX, Pythia), or Gemma's BPE with byte fallback.

    Which tokens end and pad a sequence, and whether one begins it, is read from ``tokenizer_config.json``,
    ``special_tokens_map.json`` and ``config.json`` beside it. Without them GPT-NeoX's are ``<|endoftext|>``,
    ``<|padding|>`` and none; Gemma's ``<eos>``, ``<pad>`` and ``<bos>``.

    Parameters
    ----------
    path : path-like
        The ``.json`` file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no tokenizer, names special tokens it does not hold, would read control ids from text, is
        random (BPE dropout), or changes text (lower case, NFKC, a dummy prefix), so that segments could not be
        tokenised apart.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        content = read_bytes(self.path)
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self._model = _load(self.path, content)
        vocabulary = self._model.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(vocabulary.values(), default=-1) + 1
        settings = settings_beside(self.path)
        self.eos_id = self._special("eos", settings)
        self.pad_id = self._special("pad", settings, self.eos_id)
        self.bos_id = self._beginning(settings)
        added = self._model.get_added_tokens_decoder().items()
        special = {token_id for token_id, token in added if token.special}
        self._control = np.array(sorted({*special, self.pad_id, self.eos_id}), np.int64)
        stops = [vocabulary[piece] for piece in STOP_PIECES if piece in vocabulary]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([self.eos_id, *stops]))
        self._refuse_control_ids_from_text()
        refuse_changed_text(self, self.path)

    def _special(self, role: str, settings: dict[str, Any], default: int | None = None) -> int:
        """Id of the token with a role: named by the files beside, by its usual name, numbered by config.json."""
        named = settings.get(f"{role}_token")
        if named is not None:
            content = named["content"] if isinstance(named, dict) else named
            token_id = self._model.token_to_id(content)
            if token_id is None:
                raise ValueError(f"{self.path} holds no token {content!r}, which the files beside it name {role}_token")
            return token_id
        usual = (self._model.token_to_id(content) for content in _DEFAULTS[role])
        found = [*(token_id for token_id in usual if token_id is not None), settings.get(f"{role}_token_id"), default]
        token_id = next((x for x in found if x is not None), None)
        if not isinstance(token_id, int) or not 0 <= token_id < self.vocab_size:
            raise ValueError(
                f"{self.path}: which token is {role}? Name it as {role}_token in a tokenizer_config.json beside it"
            )
        return token_id

    def _beginning(self, settings: dict[str, Any]) -> int | None:
        """Id before every sequence, if there is one: as the settings say, else as the file itself encodes."""
        adds = settings.get("add_bos_token")
        if adds is None:
            plain = self._model.encode("a", add_special_tokens=False).ids
            whole = self._model.encode("a", add_special_tokens=True).ids
            if whole[:1] != plain[:1]:
                return whole[0]
            adds = self._model.token_to_id("<bos>") is not None
        return self._special("bos", settings) if adds else None

    def _refuse_control_ids_from_text(self) -> None:
        for token_id in self._control.tolist():
            piece = self.piece(token_id)
            if not self._control_free(self.encode(piece)):
                raise ValueError(
                    f"{self.path} reads the control token {piece!r} from text that spells it: only byte-level BPE and "
                    "Gemma's tokenizers are supported"
                )

    def _control_free(self, ids: list[int]) -> bool:
        return not np.isin(ids, self._control).any()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without beginning- or end-of-sequence ids."""
        return self._model.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each of `texts`."""
        return [encoding.ids for encoding in self._model.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; padding, beginning and end of sequence give nothing.

        Raises
        ------
        ValueError
            If an id is outside the vocabulary.
        """
        array = checked_ids(ids, self.vocab_size)
        return self._model.decode(array[~np.isin(array, self._control)].tolist())

    def piece(self, token_id: int) -> str:
        """The piece with id `token_id` as the vocabulary spells it ("Ġ" or "▁" is a space)."""
        return self._model.id_to_token(int(token_id)) or ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._model.encode_special_tokens = True  # not part of the serialised model

    def __repr__(self) -> str:
        return f"HuggingFaceTokenizer({str(self.path)!r}, vocab_size={self.vocab_size})"


def _load(path: Path, content: bytes) -> tokenizers.Tokenizer:
    """The tokenizer in a file, which cuts special tokens in text like other text."""
    data = read_json(path)
    if not isinstance(data.get("model"), dict):
        raise ValueError(f"{path} is not a Hugging Face tokenizer: it has no 'model'")
    if data["model"].get("dropout"):
        raise ValueError(f"{path} uses BPE dropout: the same text would give other ids each time. Set it to null.")
    marked = [t for t in data.get("added_tokens", ()) if t.get("content") in _TEXT_PIECES]
    for token in marked:
        token["special"] = False
    try:
        model = tokenizers.Tokenizer.from_str(json.dumps(data) if marked else content.decode())
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path} is not a Hugging Face tokenizer: {error}") from None
    model.no_truncation()
    model.no_padding()
    model.encode_special_tokens = True
    return model
