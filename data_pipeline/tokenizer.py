"""Train a SentencePiece tokenizer on a corpus.

    python -m data_pipeline.tokenizer --corpus=DIR --output=FILE.model

Gene names become single pieces (with the space before them), the words of prompts and labels too; everything
else falls back to characters and bytes. Special pieces have the ids they have in Gemma's tokenizer.

The model is a unigram one. A byte-pair vocabulary must hold every intermediate merge of every name: to make
all 765 gene names of the demo single pieces it needs about 2,400 pieces, the unigram vocabulary 1,200, and
each piece costs a row of the softmax. ``--model_type=bpe`` trains the other for comparison.
"""

import io
import json
import os
import re
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import sentencepiece
from absl import app, flags

from c2s_jax.data.corpus import Corpus
from c2s_jax.text import SentencePieceTokenizer
from data_pipeline.writer import naming_errors, sync

ModelType = Literal["unigram", "bpe"]

LABEL_FIELDS = ("organism", "cell_type", "tissue", "disease", "sex", "perturbation", "dose", "time", "niche")
"""Fields whose values appear in prompts and answers."""

# After <pad>, <eos>, <bos>, <unk>. Runs of line ends and of spaces are pieces, as in Gemma's vocabulary.
_USER_PIECES = (
    "<mask>", "<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "▁▁▁▁",
)  # fmt: skip
_ALWAYS = "0123456789.,:;?!()'-/+"

# A word takes the space before it along; punctuation stands alone and never becomes part of a gene's piece.
_WORD = re.compile(r" ?[^\W_](?:[\w+/&'’%-]*[\w+])?|[^\w\s]|_")
_FIELD = re.compile(r"\{\w*\}")

MINIMUM_SHARE = 0.95
"""Share of gene names and of words that a vocabulary chosen here makes single pieces, at the least."""

_GENE_FLOOR = 64
_WORD_COUNT = 256
_SAMPLED_CELLS = 100_000
_BLOCK_CELLS = 4096
_TOO_MANY = 2_000_000


@dataclass(frozen=True)
class TokenizerReport:
    """What a trained tokenizer is like.

    Attributes
    ----------
    vocab_size : int
    model_type : str
    seed : int
    fingerprint : str
        SHA-256 of the model file.
    genes, genes_single : int, float
        Number of gene names, and the share that is one piece after a space.
    gene_tokens : float
        Mean number of tokens of a gene name, weighted by how often it is expressed.
    words, words_single : int, float
        The same for the words of texts and labels.
    """

    vocab_size: int
    model_type: str
    seed: int
    fingerprint: str
    genes: int
    genes_single: float
    gene_tokens: float
    words: int
    words_single: float


def train_tokenizer(
    corpus_dir: str | Path,
    output: str | Path,
    *,
    texts: Iterable[str] = (),
    vocab_size: int | None = None,
    seed: int = 0,
    model_type: ModelType = "unigram",
    gene_share: float = 1.0,
    word_share: float = 1.0,
) -> TokenizerReport:
    """Train a tokenizer on the train split of a corpus.

    Parameters
    ----------
    corpus_dir : path-like
    output : path-like
        Model file to write; a report is written beside it (``.report.json``). An existing file is replaced.
    texts : iterable of str
        Prompt templates (``{fields}`` are left out), labels and other texts whose words should be pieces. The
        labels in the corpus are always added.
    vocab_size : int, optional
        Number of pieces. By default the smallest for which the shares below are reached.
    seed : int
        Of the sample of cells that gene frequencies come from, where a corpus is large.
    model_type : "unigram" or "bpe"
    gene_share, word_share : float
        Share of gene names, and of words, wanted as single pieces; the smallest vocabulary that reaches both
        is searched. Where none does, the most that can be reached, if that is `MINIMUM_SHARE`.

    Returns
    -------
    TokenizerReport

    Raises
    ------
    ValueError
        If `vocab_size` is too small for the characters there are or larger than the texts can fill, or no
        vocabulary reaches the shares.
    OSError
        If the file cannot be written.
    """
    if model_type not in ("unigram", "bpe"):
        raise ValueError(f"model_type={model_type!r}: expected 'unigram' or 'bpe'")
    corpus = Corpus(corpus_dir)
    trainer = _Trainer(
        genes=_gene_counts(corpus, seed),
        words=_word_counts([*texts, *_labels(corpus)]),
        model_type=model_type,
        gene_share=gene_share,
        word_share=word_share,
    )
    model = trainer.smallest() if vocab_size is None else trainer.train(vocab_size)
    output = Path(output)
    with _replacing(output) as temporary:
        temporary.write_bytes(model)
        tokenizer = SentencePieceTokenizer(temporary)  # refuses a model the package could not use
    report = trainer.report(model, seed, tokenizer.fingerprint)
    with _replacing(output.with_suffix(".report.json")) as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")
    return report


@dataclass(frozen=True)
class _Trainer:
    genes: Mapping[str, int]
    words: Mapping[str, int]
    model_type: ModelType
    gene_share: float
    word_share: float

    def train(self, vocab_size: int) -> bytes:
        """Train with `vocab_size` pieces."""
        longest = max(map(len, [*self.genes, *self.words, "x"])) + 1
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.Train(
                sentence_iterator=iter(self._sentences()),
                model_writer=model,
                input_format="tsv",
                model_type=self.model_type,
                vocab_size=vocab_size,
                pad_id=0,
                eos_id=1,
                bos_id=2,
                unk_id=3,
                pad_piece="<pad>",
                eos_piece="<eos>",
                bos_piece="<bos>",
                unk_piece="<unk>",
                user_defined_symbols=list(_USER_PIECES),
                byte_fallback=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                # Gene names mix letters, digits, hyphens and periods; only spaces separate.
                split_by_unicode_script=False,
                split_by_number=False,
                split_digits=False,
                split_by_whitespace=True,
                allow_whitespace_only_pieces=True,
                character_coverage=1.0,
                max_sentencepiece_length=longest,
                num_threads=1,  # floating-point sums in one order: the same model every time
                minloglevel=2,
            )
        except RuntimeError as error:
            message = str(error).split("] ")[-1].strip()
            raise ValueError(f"no tokenizer with vocab_size={vocab_size}: {message}") from error
        return model.getvalue()

    def _sentences(self) -> list[str]:
        # A word and its count. The trainer considers only strings that occur twice, hence every word twice.
        counts = {f" {name}": count for name, count in self.genes.items()}
        for word, count in self.words.items():
            counts[word] = max(count, counts.get(word, 0))
        for character in _ALWAYS:
            counts.setdefault(character, _GENE_FLOOR)
        return [f"{word * 2 if word[0] == ' ' else word}\t{count}" for word, count in sorted(counts.items())]

    def smallest(self) -> bytes:
        """The model with the fewest pieces that reaches the shares, or what comes nearest to them."""
        high = self._ceiling()
        best = self.train(high)
        reached = self._single(best)
        wanted = (min(self.gene_share, reached[0]), min(self.word_share, reached[1]))
        if min(wanted) < MINIMUM_SHARE and wanted != (self.gene_share, self.word_share):
            raise ValueError(
                f"even {high} pieces make only {reached[0]:.1%} of gene names and {reached[1]:.1%} of words "
                "single pieces. Lower gene_share or word_share, or set vocab_size."
            )
        low = 0
        while high - low > 1:
            middle = (low + high) // 2
            model = self._try(middle)
            if model is not None and all(a >= b for a, b in zip(self._single(model), wanted, strict=True)):
                best, high = model, middle
            else:
                low = middle
        return best

    def _try(self, vocab_size: int) -> bytes | None:
        try:
            return self.train(vocab_size)
        except ValueError:
            return None  # fewer pieces than characters

    def _ceiling(self) -> int:
        """The largest vocabulary the words can fill."""
        try:
            self.train(_TOO_MANY)
        except ValueError as error:
            if found := re.search(r"<= (\d+)", str(error)):
                return int(found.group(1))
            raise
        return _TOO_MANY

    def _single(self, model: bytes) -> tuple[float, float]:
        tokenizer = _load(model)
        return (
            _share_single(tokenizer, [f" {name}" for name in self.genes]),
            _share_single(tokenizer, [word for word in self.words if word[0] == " "]),
        )

    def report(self, model: bytes, seed: int, fingerprint: str) -> TokenizerReport:
        tokenizer = _load(model)
        genes, words = self._single(model)
        lengths = np.array([len(ids) for ids in tokenizer.Encode([f" {name}" for name in self.genes])])
        weights = np.array(list(self.genes.values()))
        return TokenizerReport(
            vocab_size=tokenizer.vocab_size(),
            model_type=self.model_type,
            seed=seed,
            fingerprint=fingerprint,
            genes=len(self.genes),
            genes_single=genes,
            gene_tokens=float((lengths * weights).sum() / max(1, weights.sum())),
            words=sum(word[0] == " " for word in self.words),
            words_single=words,
        )


def _gene_counts(corpus: Corpus, seed: int) -> dict[str, int]:
    """How many cells of the train split (of a sample, if it is large) express each gene."""
    cells = corpus.cells("train")
    chosen = np.arange(len(cells))
    if len(cells) > _SAMPLED_CELLS:
        draw = np.random.Generator(np.random.Philox(key=seed))
        chosen = np.sort(draw.choice(len(cells), _SAMPLED_CELLS, replace=False))
    counts = np.zeros(len(corpus.genes), dtype=np.int64)
    for start in range(0, len(chosen), _BLOCK_CELLS):
        genes = cells.take(chosen[start : start + _BLOCK_CELLS]).genes
        counts += np.bincount(genes, minlength=len(counts))
    # Every name is wanted as a piece, also one that no cell of this split expresses.
    counts = np.maximum(counts, _GENE_FLOOR)
    return dict(zip(corpus.genes.names, counts.tolist(), strict=True))


def _labels(corpus: Corpus) -> Iterator[str]:
    cells = corpus.cells("train")
    for field in LABEL_FIELDS:
        yield from (str(value) for value in cells.field_codes(field)[1] if value)


def _word_counts(texts: Iterable[str]) -> dict[str, int]:
    """Words of the texts with the space before them; with and without it where a text begins."""
    counts: Counter[str] = Counter()
    for text in texts:
        for line in _FIELD.sub("\n", text).split("\n"):
            counts.update(_WORD.findall(line))
            counts.update(_WORD.findall(f" {line.lstrip()}")[:1])
    return {word: _WORD_COUNT + count for word, count in sorted(counts.items())}


def _load(model: bytes) -> sentencepiece.SentencePieceProcessor:
    tokenizer = sentencepiece.SentencePieceProcessor()
    tokenizer.LoadFromSerializedProto(model)
    return tokenizer


def _share_single(tokenizer: sentencepiece.SentencePieceProcessor, words: Sequence[str]) -> float:
    if not words:
        return 1.0
    return float(np.mean([len(ids) == 1 for ids in tokenizer.Encode(list(words))]))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when all went well."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        with naming_errors(path, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def template_texts() -> list[str]:
    """Texts of the project's prompt templates."""
    folder = resources.files("c2s_jax").joinpath("tasks", "templates")
    texts: list[str] = []
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".json"):
            content = json.loads(file.read_text("utf-8"))
            texts += [text for values in content.values() if isinstance(values, list) for text in values]
    return texts


def _define_flags() -> None:
    flags.DEFINE_string("corpus", None, "Corpus directory.", required=True)
    flags.DEFINE_string("output", None, "Model file to write.", required=True)
    flags.DEFINE_list("texts", [], "Text files whose words should be pieces.")
    flags.DEFINE_integer("vocab_size", None, "Number of pieces; default: as few as possible.")
    flags.DEFINE_enum("model_type", "unigram", ["unigram", "bpe"], "Kind of model.")
    flags.DEFINE_float("gene_share", 1.0, "Share of gene names wanted as single pieces.")
    flags.DEFINE_float("word_share", 1.0, "Share of words wanted as single pieces.")
    flags.DEFINE_integer("seed", 0, "Seed of the sample of cells.")


def main(argv: Sequence[str]) -> None:
    """Command line entry point."""
    values = flags.FLAGS
    try:
        report = train_tokenizer(
            values.corpus,
            values.output,
            texts=[*template_texts(), *(Path(p).read_text("utf-8") for p in values.texts)],
            vocab_size=values.vocab_size,
            seed=values.seed,
            model_type=values.model_type,
            gene_share=values.gene_share,
            word_share=values.word_share,
        )
    except (ValueError, KeyError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(asdict(report), indent=1))


if __name__ == "__main__":
    _define_flags()
    app.run(main)
