"""Answers of mixed lengths in batches, where short ones wait for the longest, and in slots that are filled again.

    C2S_DATA=FOLDER python -m benchmarks.slots_speed [--prompts=64] [--rows=16] [--turns=3]

Prints JSON. A small Gemma-2 with random weights writes lists of k genes under the grammar, k log-uniform from 4 to 64
and shuffled over the prompts, so that answers have from about 10 to 170 tokens. Both sides hold as many rows at once
and give the same answers (compared before anything is timed); they take turns in one process, seconds are wall-clock.
"""

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu"}

import jax
import numpy as np
from flax import nnx

from benchmarks.grammar_overhead import MODEL, gene_names
from c2s_jax.generation import GeneGrammar, Sampler, SlotSampler
from c2s_jax.models import Gemma2, Gemma2Config
from c2s_jax.parallel import make_mesh
from c2s_jax.text import GeneTokenTable, load_tokenizer

GENES = 20_000
FEWEST, MOST = 4, 64  # genes of a list
NEW_TOKENS = 384


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("prompts", 64), ("rows", 16), ("turns", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    data = Path(os.environ["C2S_DATA"])
    tokenizer = load_tokenizer(data / "tokenizer_gemma2")
    table, rng = GeneTokenTable.build(tokenizer, gene_names(data, GENES)), np.random.default_rng(0)
    lengths = np.exp(np.linspace(np.log(FEWEST), np.log(MOST), arguments.prompts)).round().astype(int)
    grammar = GeneGrammar.build(table, tokenizer.eos_id).with_genes(rng.permutation(lengths))
    graphdef, params = nnx.split(Gemma2(Gemma2Config(**MODEL), rngs=nnx.Rngs(0)))
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    batches = Sampler(graphdef, stop_ids=(tokenizer.eos_id,), batch_size=arguments.rows, mesh=mesh)
    sides: dict[str, Any] = {"batches": batches, "slots": SlotSampler(batches)}
    prompts = [rng.integers(1, 256_000, 32, np.int32) for _ in range(arguments.prompts)]
    options: Any = dict(max_new_tokens=NEW_TOKENS, grammar=grammar)
    made = {name: side(params, prompts, **options) for name, side in sides.items()}
    same = int((made["batches"].tokens == made["slots"].tokens).all(axis=1).sum())
    tokens, seconds = int(made["batches"].lengths.sum()), {name: [] for name in sides}
    for turn in range(arguments.turns):
        for name, side in sides.items():
            began = time.perf_counter()
            side(params, prompts, **options)
            seconds[name].append(time.perf_counter() - began)
        print(turn, {name: round(x[-1], 2) for name, x in seconds.items()}, file=sys.stderr, flush=True)
    middle = {name: median(x) for name, x in seconds.items()}
    result = {
        "benchmark": "slots_speed",
        "tokens_per_second": {name: round(tokens / x, 1) for name, x in middle.items()},
        "slots_relative_to_batches": round(middle["batches"] / middle["slots"], 2),
        "answers": len(prompts),
        "equal_answers": same,
        "tokens": tokens,
        "longest_answer": int(made["batches"].lengths.max()),
        "all_stopped": bool(made["batches"].stopped.all()),
        "sizes": vars(arguments) | {"model": MODEL, "genes": GENES, "of_a_list": [FEWEST, MOST]},
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
