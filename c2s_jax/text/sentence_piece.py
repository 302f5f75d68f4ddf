"""SentencePiece models: Gemma's, or one trained by `data_pipeline.tokenizer`."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from c2s_jax.text.tokenizer import STOP_PIECES, checked_ids, read_bytes, refuse_changed_text, settings_beside


class SentencePieceTokenizer:
    """A SentencePiece model (Gemma's, or one trained by `data_pipeline.tokenizer`).

    Parameters
    ----------
    path : path-like
        The ``.model`` file. A ``tokenizer_config.json`` beside it can add stop pieces that the model does not know.

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
        content = read_bytes(self.path)
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
        refuse_changed_text(self, self.path)
        self.stop_ids = self._stop_ids()

    def _refuse_missing_specials(self) -> None:
        ids = {"<pad>": self.pad_id, "<bos>": self.bos_id, "<eos>": self.eos_id}
        missing = [name for name, value in ids.items() if value < 0]
        if missing:
            raise ValueError(
                f"{self.path} has no {', '.join(missing)} piece. Train one with "
                "`python -m data_pipeline.tokenizer`, or use the tokenizer of the checkpoint."
            )

    def _stop_ids(self) -> tuple[int, ...]:
        unknown = self._model.unk_id()
        known = {piece: self._model.PieceToId(piece) for piece in STOP_PIECES}
        stops = [self.eos_id, *(stop for stop in known.values() if stop != unknown)]
        added = settings_beside(self.path).get("added_tokens_decoder", {})
        stops += [int(token_id) for token_id, token in added.items() if token["content"] in STOP_PIECES]
        return tuple(dict.fromkeys(stops))

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
        return self._model.DecodeIds(checked_ids(ids, self.vocab_size).tolist())

    def piece(self, token_id: int) -> str:
        """The piece with id `token_id` as the vocabulary spells it ("▁" is a space)."""
        return self._model.IdToPiece(int(token_id))

    def __repr__(self) -> str:
        return f"SentencePieceTokenizer({str(self.path)!r}, vocab_size={self.vocab_size})"
