"""A small tokenizer of GPT-NeoX's kind, trained here, and the folder where the real ones may be found."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

DATA = Path(os.environ.get("C2S_DATA") or Path(__file__).parents[3] / "shared" / "data")


def real_file(*names: str) -> Path:
    """Path of a file in the data folder; skips the test where it is absent."""
    path = DATA.joinpath(*names)
    if not path.is_file():
        pytest.skip(f"{'/'.join(names)} is not in the data folder (set C2S_DATA)")
    return path


def train_neox(folder: Path, texts: list[str], vocab_size: int = 500) -> Path:
    """Train byte-level BPE with NFC, GPT-2's words and runs of spaces; returns the ``tokenizer.json``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([*texts, "\n\n\n" * 9, "end of text padding |> " * 9], trainer)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (4, 3, 2)])
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def rewrite(path: Path, **changes) -> Path:
    """Change parts of a ``tokenizer.json``."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def gene_lists(n_genes: int, shortest: int, longest: int, seed: int = 0) -> list[np.ndarray]:
    """Every gene once, in random order, in lists of random lengths."""
    rng = np.random.default_rng(seed)
    cuts = np.cumsum(rng.integers(shortest, longest, n_genes // shortest, endpoint=True))
    return [x for x in np.split(rng.permutation(n_genes), cuts) if len(x)]
