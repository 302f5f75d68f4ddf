"""Speed of the loops that make and pack cell sentences, on one core.

    python -m benchmarks.corpus_speed [--reference-python=PATH] [--tokenizer=FILE] [--parts ranking tokens packing]

Prints JSON; progress goes to standard error. The process keeps to one core and one thread. Seconds are processor time
of the process, the least and the median of several runs, so that other programs on the machine count less; caches
they still share. ``--reference-python`` is an interpreter that has cell2sentence, whose sentences of the same cells
must be those that this project makes with ``ties="cell2sentence"``. The loader has a
benchmark of its own, ``loader_speed``.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

import numpy as np
import sentencepiece
import tokenizers
from numpy.typing import NDArray
from scipy import sparse

from benchmarks._peer import Peer
from c2s_jax.cells import rank_cells
from c2s_jax.data.packing import plan_rows
from c2s_jax.text import GeneTokenTable, SentencePieceTokenizer, load_tokenizer
from c2s_jax.text.sentence_piece_json import to_hugging_face

GENES, CELLS, SEQ_LEN = 20_000, 3_000, 8192
REFERENCE_CELLS, TURNS = 1_000, 5
TOKENIZED_CELLS, KEPT_GENES = 400, 1_000
EXAMPLES = 1_000_000
PARTS = ("ranking", "tokens", "packing")


Encode = Callable[[list[str]], list[list[int]]]


def say(*words: object) -> None:
    """A line of progress."""
    print(*words, file=sys.stderr, flush=True)


def timed(do: Callable[[], Any], repeats: int) -> list[float]:
    """Processor seconds of each of several runs, after one that is not timed."""
    do()
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        do()
        seconds.append(time.process_time() - began)
    return seconds


def speed(amount: float, seconds: list[float]) -> dict[str, float]:
    """Amount a second, in the best and the median run."""
    return {"best": round(amount / min(seconds)), "median": round(amount / median(seconds))}


def counts(cells: int, genes: int) -> sparse.csr_matrix:
    """Poisson counts of genes of log-normal abundance, about 2,000 a cell above 0, float32 [cells, genes]."""
    rng = np.random.Generator(np.random.Philox(0))
    abundance = rng.lognormal(0.0, 2.0, genes)
    share = abundance / abundance.sum()
    parts = []
    for start in range(0, cells, 500):
        molecules = rng.lognormal(np.log(3_650), 0.35, (min(500, cells - start), 1))
        parts.append(sparse.csr_matrix(rng.poisson(molecules * share).astype(np.float32)))
    return sparse.vstack(parts, format="csr")


def ranking(matrix: sparse.csr_matrix, reference_python: str | None, folder: Path) -> dict[str, Any]:
    """Cells ranked a second: of counts, of their logarithms, and beside cell2sentence."""
    n = matrix.shape[0]
    cells, genes = [f"AAACCTGAGAAACCAT-{i}" for i in range(n)], [f"GENE{i}" for i in range(matrix.shape[1])]
    logged = matrix.copy()
    logged.data = np.log1p(2.5 * logged.data)
    began = time.perf_counter()
    rank_cells(matrix[:1], cells[:1], genes)
    first_call = time.perf_counter() - began
    found = {
        "cells": n,
        "genes": len(genes),
        "expressed_genes_a_cell": round(matrix.nnz / n, 1),
        "share_of_ones": round(float((matrix.data == 1).mean()), 3),
        "first_call_seconds": round(first_call, 2),
        "cells_per_second": speed(n, timed(lambda: rank_cells(matrix, cells, genes), 15)),
        "cells_per_second_log1p": speed(n, timed(lambda: rank_cells(logged, cells, genes), 15)),
        "cells_per_second_top_1000": speed(n, timed(lambda: rank_cells(matrix, cells, genes, top_k=1000), 15)),
    }
    if reference_python is None:
        return found | {"cell2sentence": "--reference-python names no interpreter that has it"}
    found["cell2sentence"] = beside_cell2sentence(matrix, cells, genes, reference_python, folder)
    return found


def beside_cell2sentence(
    matrix: sparse.csr_matrix, cells: list[str], genes: list[str], python: str, folder: Path
) -> dict[str, Any]:
    """The other library's speed, and ours on the same cells in turns with it."""
    part, cells = matrix[:REFERENCE_CELLS], cells[:REFERENCE_CELLS]
    sparse.save_npz(folder / "matrix.npz", part, compressed=False)
    peer = Peer("_cell2sentence_peer", str(folder / "matrix.npz"), python=python)
    ranked = rank_cells(part, cells, genes, ties="cell2sentence")
    sentences = "\n".join(" ".join(genes[g] for g in cell) for cell in ranked)
    if peer("sentences")["sha256"] != hashlib.sha256(sentences.encode()).hexdigest():
        raise SystemExit("cell2sentence makes other sentences than ties='cell2sentence': not the same work")
    turns = []
    for _ in range(TURNS):
        ours = REFERENCE_CELLS / min(timed(lambda: rank_cells(part, cells, genes), 5))
        turns.append((ours, REFERENCE_CELLS / min(peer("sentences")["seconds"] for _ in range(3))))
    about = peer("about")
    peer.close()
    theirs = [other for _, other in turns]
    ratios = [ours / other for ours, other in turns]
    return {
        **about,
        "cells_per_second": {"best": round(max(theirs)), "median": round(median(theirs))},
        "ours_over_theirs": {"median": round(median(ratios), 1), "turns": [round(ratio, 1) for ratio in ratios]},
    }


def gene_names(n: int) -> list[str]:
    """Made-up names of the shapes that real ones have."""
    stems = ["CD", "HLA-D", "RPL", "RPS", "MT-ND", "IGHV", "ZNF", "LINC0", "SLC", "TMEM", "KIF", "FAM", "COL", "AC0"]
    ends = ["", "A1", "B", "L2", ".1", "-AS1", "P3"]
    return [stems[i % 14] + str(i // 98 + 1) + ends[i // 14 % 7] for i in range(n)]


def train_tokenizer(names: list[str], folder: Path) -> Path:
    """A small SentencePiece model that cuts names as those of released models do, into two or three pieces."""
    rng = np.random.Generator(np.random.Philox(1))
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter([" " + " ".join(rng.choice(names, 40)) for _ in range(4_000)]),
        model_prefix=str(folder / "tokenizer"),
        model_type="unigram",
        vocab_size=2_000,
        num_threads=1,
        minloglevel=2,
        byte_fallback=True,
        split_by_unicode_script=False,
        split_by_number=False,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=["<mask>", "\n"],
    )
    return folder / "tokenizer.model"


def tokenizers_of(path: Path) -> dict[str, Encode]:
    """What makes tokens of texts, by library; a SentencePiece model is run by both."""
    loaded = load_tokenizer(path)
    if not isinstance(loaded, SentencePieceTokenizer):
        return {"hugging_face": loaded.encode_batch}
    fast = tokenizers.Tokenizer.from_str(to_hugging_face(loaded))

    def encode(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in fast.encode_batch(texts, add_special_tokens=False)]

    return {"sentencepiece": loaded.encode_batch, "hugging_face": encode}


def tokens(tokenizer: Path | None, folder: Path) -> dict[str, Any]:
    """Tokens of sentences a second: looked up, and made by the tokenizers themselves from the text."""
    names = gene_names(GENES)
    tokenizer = tokenizer or train_tokenizer(names, folder)
    table = GeneTokenTable.build(load_tokenizer(tokenizer), names)
    rng = np.random.Generator(np.random.Philox(2))
    genes = rng.integers(0, GENES, TOKENIZED_CELLS * KEPT_GENES).astype(np.int32)
    indptr = np.arange(TOKENIZED_CELLS + 1) * KEPT_GENES
    looked_up, token_indptr = table.encode_many(genes, indptr)
    n = len(looked_up)
    found: dict[str, Any] = {
        "tokens_a_gene": round(n / len(genes), 2),
        "by_table": speed(n, timed(lambda: table.encode_many(genes, indptr), 15)),
        "lengths_by_table": speed(n, timed(lambda: table.token_lengths(genes, indptr), 15)),
    }
    some = TOKENIZED_CELLS // 20
    sentences = [" " + " ".join(names[g] for g in cell) for cell in np.split(genes, TOKENIZED_CELLS)[:some]]
    for name, encode in tokenizers_of(tokenizer).items():
        encoded = np.concatenate(encode(sentences))
        if not np.array_equal(encoded, looked_up[: token_indptr[some]]):
            raise SystemExit(f"{name} makes other tokens than the table")
        found[name] = speed(len(encoded), timed(partial(encode, sentences), 3))
    return found


def packing() -> dict[str, Any]:
    """Seconds to place a million examples, and how full rows get."""
    rng = np.random.Generator(np.random.Philox(3))
    kinds: dict[str, NDArray[np.int64]] = {
        "sentences of 100 to 1,000 genes": (340 * 10 ** rng.random(EXAMPLES)).astype(np.int64),
        "one size (1,000)": np.full(EXAMPLES, 1_000),
        "two sizes (150, 2,000)": rng.choice([150, 2_000], EXAMPLES),
        "heavy tail": np.minimum(100 * (1 + rng.pareto(1.2, EXAMPLES)), SEQ_LEN).astype(np.int64),
    }
    found = {}
    for name, lengths in kinds.items():
        rows = int(lengths.sum() / SEQ_LEN / 1.03)
        seconds = timed(partial(plan_rows, lengths, rows, SEQ_LEN), 3)
        held = lengths[plan_rows(lengths, rows, SEQ_LEN) >= 0].sum()
        found[name] = {"seconds": round(median(seconds), 2), "rows": rows, "fill": round(held / rows / SEQ_LEN, 4)}
    return {"examples": EXAMPLES, "seq_len": SEQ_LEN, "plans": found}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    packages = ("numpy", "scipy", "numba", "sentencepiece", "tokenizers")
    return {
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference-python", help="interpreter that has cell2sentence")
    parser.add_argument("--tokenizer", type=Path, help="for sentences of made-up gene names; a small one by default")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure = {
            "ranking": lambda: ranking(counts(CELLS, GENES), arguments.reference_python, folder),
            "tokens": lambda: tokens(arguments.tokenizer, folder),
            "packing": packing,
        }
        for part in arguments.parts:
            say(part)
            found[part] = measure[part]()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
