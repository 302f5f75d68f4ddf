"""Corpus and tokenizer of a data set that comes with the installed packages, made in a run's folder on first use."""

from pathlib import Path

from data_pipeline.assemble import build_corpus
from data_pipeline.sources import BUNDLED
from data_pipeline.tokenizer import template_texts, train_tokenizer

SPLIT_SEED = 0  # the split is the same for every run, so that their figures compare


def prepare(name: str, folder: str | Path) -> tuple[str, str]:
    """Build corpus and tokenizer unless they are there already.

    Parameters
    ----------
    name
        Key of ``data_pipeline.sources.BUNDLED``.
    folder
        Gets ``corpus/`` and ``tokenizer.model``, each whole or not at all.

    Returns
    -------
    Paths of the corpus and of the tokenizer.
    """
    if name not in BUNDLED:
        raise ValueError(f"data.bundled={name!r} is unknown; there is {', '.join(BUNDLED)}")
    corpus, tokenizer = Path(folder) / "corpus", Path(folder) / "tokenizer.model"
    if not corpus.exists():
        build_corpus([BUNDLED[name]()], corpus, split=(0.7, 0.1, 0.2), stratify="cell_type", seed=SPLIT_SEED)
    if not tokenizer.exists():
        train_tokenizer(corpus, tokenizer, texts=template_texts(), seed=SPLIT_SEED)
    return str(corpus), str(tokenizer)
