"""Tokenizers of encoders: WordPiece (BERT, BioBERT, MiniLM), and RoBERTa's byte-level BPE."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import normalizers, pre_tokenizers, processors

from c2s_jax.text.tokenizer import read_bytes, settings_beside

JSON, VOCAB = "tokenizer.json", "vocab.txt"
CLS, SEP, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"


class EncoderTokenizer:
    """Text to token ids with the special tokens around them, as an encoder reads it.

    Parameters
    ----------
    path : path-like
        A ``tokenizer.json``, a WordPiece ``vocab.txt``, or a folder with one of them (``tokenizer.json`` is preferred).
        Whether a ``vocab.txt`` is of lower-cased text is read from the ``tokenizer_config.json`` beside it
        (``do_lower_case``, ``strip_accents``, ``tokenize_chinese_chars``); without that, it is if it has no token "A".

    Attributes
    ----------
    vocab_size : int
        Number of tokens; ids are 0 … vocab_size − 1.
    special_ids : tuple of int
        What stands before and after every text: ``[CLS]`` and ``[SEP]``, or ``<s>`` and ``</s>``.
    fingerprint : str
        SHA-256 (hex) of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no tokenizer, or puts nothing around a text.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = _file(Path(path))
        content = read_bytes(self.path)
        self.fingerprint = hashlib.sha256(content).hexdigest()
        if self.path.suffix == ".json":
            try:
                self._model = tokenizers.Tokenizer.from_str(content.decode())
            except Exception as error:  # the library raises nothing narrower
                raise ValueError(f"{self.path} is not a Hugging Face tokenizer: {error}") from None
        else:
            self._model = _word_piece(self.path, content)
        self._model.no_padding()
        self._model.no_truncation()
        self.vocab_size: int = max(self._model.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.special_ids = tuple(self._model.encode("").ids)
        if not self.special_ids:
            raise ValueError(f"{self.path} puts no special tokens around a text: it is not an encoder's tokenizer")

    def encode_batch(self, texts: Sequence[str], max_length: int | None = None) -> list[NDArray[np.int32]]:
        """Token ids of each text, special tokens included; at most ``max_length`` of them, the rest is cut off.

        Raises
        ------
        TypeError
            When ``texts`` is one text.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a list of texts, not one text")
        if max_length is None:
            self._model.no_truncation()
        else:
            self._model.enable_truncation(max_length)
        return [np.array(encoding.ids, np.int32) for encoding in self._model.encode_batch_fast(list(texts))]

    def piece(self, token_id: int) -> str:
        """The token with id `token_id` as the vocabulary spells it ("##" continues a word)."""
        return self._model.id_to_token(int(token_id)) or ""

    def __repr__(self) -> str:
        return f"EncoderTokenizer({str(self.path)!r}, vocab_size={self.vocab_size})"


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in (JSON, VOCAB):
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"no {JSON} or {VOCAB} in {path} (it holds {sorted(p.name for p in path.iterdir())[:8]})")


def _word_piece(path: Path, content: bytes) -> tokenizers.Tokenizer:
    """BERT's tokenizer of a vocabulary: one token a line, a line's number its id."""
    vocabulary = {token: number for number, token in enumerate(content.decode().splitlines())}
    if missing := [token for token in (UNKNOWN, CLS, SEP) if token not in vocabulary]:
        raise ValueError(f"{path} is no WordPiece vocabulary: it lacks {', '.join(missing)}")
    settings = settings_beside(path)
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token=UNKNOWN))
    model.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", "A" not in vocabulary),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.post_processor = processors.BertProcessing((SEP, vocabulary[SEP]), (CLS, vocabulary[CLS]))
    model.add_special_tokens([t for t in (UNKNOWN, SEP, "[PAD]", CLS, "[MASK]") if t in vocabulary])
    return model
