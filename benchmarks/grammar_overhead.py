"""Decoding with and without the gene grammar, with Gemma-2's tokenizer and all protein-coding or all human genes.

    C2S_DATA=FOLDER python -m benchmarks.grammar_overhead [--genes=36000] [--batch=8] [--new-tokens=64] [--turns=5]

Prints JSON. Both sides sample as many tokens from the same small Gemma-2 with a vocabulary of 256,000, in turns, in one
process on one core; seconds are processor time, so that other programs on the machine count less. The grammar's
work is also timed on its own, with logits given: that is what it would add to a model whose output table costs nothing.
Prompts are read by both sides alike and are in both times.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx

from c2s_jax.generation import GeneGrammar, Sampler
from c2s_jax.models import Gemma2, Gemma2Config
from c2s_jax.parallel import make_mesh
from c2s_jax.text import GeneTokenTable, load_tokenizer

MODEL: dict[str, Any] = dict(embed_dim=256, ffw_dim=1024, num_layers=8, num_heads=4, num_kv_heads=2, head_dim=64)
MODEL |= dict(query_pre_attn_scalar=64.0, sliding_window=128, vocab_size=256_000)


def gene_names(folder: Path, count: int) -> list[str]:
    """Names of human genes, those with a symbol first; with all, many are accession numbers."""
    table = pd.read_csv(folder / "vocab_genes" / "genes_homo_sapiens.csv.gz", header=None)
    names = table[1].astype(str).drop_duplicates()
    names = names[~names.str.contains(r"\s")]
    return [*names[~names.str.startswith("ENSG")], *names[names.str.startswith("ENSG")]][:count]


def processor_seconds(do: Callable[[], Any]) -> float:
    """Processor seconds of one call."""
    began = time.process_time()
    jax.block_until_ready(do())
    return time.process_time() - began


def grammar_alone(grammar: GeneGrammar, rows: int, steps: int) -> Callable[[], Any]:
    """Steps of candidates and moves with given logits, the likeliest taken."""
    logits = jax.random.normal(jax.random.key(0), (rows, len(grammar.symbols)))

    @jax.jit
    def run(grammar: GeneGrammar, logits: jax.Array) -> Any:
        def step(i: Any, walk: Any) -> Any:
            found = grammar.candidates(walk, jnp.roll(logits, i, axis=1))
            return grammar.take(walk, jnp.argmax(found, axis=1), jnp.ones(rows, bool))[1]

        return jax.lax.fori_loop(0, steps, step, grammar.start(rows))

    return lambda: run(grammar, logits)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("genes", 36_000), ("batch", 8), ("new-tokens", 64), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    data = Path(os.environ["C2S_DATA"])
    tokenizer = load_tokenizer(data / "tokenizer_gemma2")
    names = gene_names(data, arguments.genes)
    table = GeneTokenTable.build(tokenizer, names)
    began = time.process_time()
    grammar = GeneGrammar.build(table, tokenizer.eos_id)
    built = time.process_time() - began
    graphdef, params = nnx.split(Gemma2(Gemma2Config(**MODEL), rngs=nnx.Rngs(0)))
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    sampler = Sampler(graphdef, stop_ids=(tokenizer.eos_id,), batch_size=arguments.batch, mesh=mesh)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 256_000, 32, np.int32) for _ in range(arguments.batch)]

    def sample(grammar: GeneGrammar | None) -> Callable[[], Any]:
        return lambda: sampler(params, prompts, max_new_tokens=arguments.new_tokens, grammar=grammar)

    sides = {
        "without": sample(None),
        "with": sample(grammar.with_genes(arguments.new_tokens)),
        "grammar_alone": grammar_alone(grammar, arguments.batch, arguments.new_tokens),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(arguments.turns + 1):
        for name, do in sides.items():
            taken = processor_seconds(do)
            if turn:
                seconds[name].append(taken)
            print(name, round(taken, 3), file=sys.stderr, flush=True)
    middle = {name: median(x) for name, x in seconds.items()}
    result = {
        "benchmark": "grammar_overhead",
        "seconds": {name: round(x, 4) for name, x in middle.items()},
        "seconds_of_turns": {name: [round(s, 4) for s in x] for name, x in seconds.items()},
        "with_relative_to_without": round(middle["with"] / middle["without"], 3),
        "grammar_alone_relative_to_without": round(middle["grammar_alone"] / middle["without"], 3),
        "seconds_to_build": round(built, 2),
        "grammar": {
            "genes": len(names),
            "symbols": len(grammar.symbols),
            "first_symbols": grammar.width,
            "nodes": len(grammar.symbol),
            "fan_out": grammar.fan_out,
        },
        "sizes": vars(arguments) | {"model": MODEL},
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
