"""Folders of checkpoints, here or on the Hugging Face hub."""

import re
from collections.abc import Sequence
from pathlib import Path

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
WANTED = ("*.safetensors", "*.json", "tokenizer.model", "merges.txt", "vocab.txt")
UNWANTED = "[!1]*/*"  # other formats lie in folders; 1_Pooling/ says how an encoder's vectors are made


def local_folder(source: str | Path, *, also: Sequence[str] = ()) -> Path:
    """``source`` if it is a folder, else the downloaded files of the hub's repository of that name (owner/name).

    Only safetensors, JSON and tokenizer files, and ``also``, are downloaded; they are kept in the hub's cache.

    Raises
    ------
    FileNotFoundError
        When it is neither.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.exists() or not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(f"{source} is neither a folder nor the name of a Hugging Face repository (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=[*WANTED, *also], ignore_patterns=UNWANTED))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{source} is no folder here, and Hugging Face's repository of that name could not be read: {error}"
        ) from error
