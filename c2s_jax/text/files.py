"""Tokenizers in folders: which file is read, and folders that ``transformers.AutoTokenizer`` opens."""

import json
import shutil
from pathlib import Path
from typing import Any

from c2s_jax.text.hugging_face import HuggingFaceTokenizer
from c2s_jax.text.sentence_piece import SentencePieceTokenizer
from c2s_jax.text.sentence_piece_json import to_hugging_face
from c2s_jax.text.tokenizer import Tokenizer

MODEL, JSON, CONFIG = "tokenizer.model", "tokenizer.json", "tokenizer_config.json"
COMPANIONS = (CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


def load_tokenizer(path: str | Path) -> SentencePieceTokenizer | HuggingFaceTokenizer:
    """Load a tokenizer from a file or from the folder of a checkpoint.

    Parameters
    ----------
    path : path-like
        A SentencePiece ``.model`` file, a Hugging Face ``tokenizer.json``, or a folder with ``tokenizer.model`` or
        ``tokenizer.json``. Where a folder holds both, they give the same ids and the former is read.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`, or the folder holds neither.
    ValueError
        If the file is of a kind that is not supported.
    """
    path = Path(path)
    if path.is_dir():
        path = _file_in(path)
    return HuggingFaceTokenizer(path) if path.suffix == ".json" else SentencePieceTokenizer(path)


def copy_tokenizer(source: str | Path, folder: str | Path) -> None:
    """Put a tokenizer's files into a folder so that ``AutoTokenizer.from_pretrained(folder)`` opens it.

    Files of the tokenizer are copied as they are. For a SentencePiece model that stands alone, as
    `data_pipeline.tokenizer` writes it, a ``tokenizer.json`` with the same pieces is written beside it, and where
    there is no ``tokenizer_config.json``, one that names the special tokens.

    Parameters
    ----------
    source : path-like
        What `load_tokenizer` takes.
    folder : path-like
        Made if need be; files in it are replaced.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_tokenizer`, or if a ``tokenizer.json`` cannot be written for the model.
    """
    tokenizer, folder = load_tokenizer(source), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    home = tokenizer.path.parent
    _copy(tokenizer.path, folder / (MODEL if isinstance(tokenizer, SentencePieceTokenizer) else JSON))
    for name in COMPANIONS:
        if (home / name).is_file():
            _copy(home / name, folder / name)
    if isinstance(tokenizer, SentencePieceTokenizer):
        converted = home / JSON
        if converted.is_file():
            _copy(converted, folder / JSON)
        elif not (home / CONFIG).is_file():
            (folder / JSON).write_text(to_hugging_face(tokenizer), "utf-8")
    if not (home / CONFIG).is_file():
        (folder / CONFIG).write_text(json.dumps(_config(tokenizer), indent=1) + "\n", "utf-8")


def _file_in(folder: Path) -> Path:
    for name in (MODEL, JSON):
        if (folder / name).is_file():
            return folder / name
    found = sorted(p.name for p in folder.iterdir())
    raise FileNotFoundError(f"no {MODEL} or {JSON} in {folder} (it holds {found[:8]})")


def _copy(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        shutil.copyfile(source, target)


def _config(tokenizer: Tokenizer) -> dict[str, Any]:
    roles = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": tokenizer.bos_id is not None,
        "clean_up_tokenization_spaces": False,
        **{role: tokenizer.piece(token_id) for role, token_id in roles.items() if token_id is not None},
    }
