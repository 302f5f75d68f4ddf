"""What a pass over drafted tokens costs, and what drafting gene names gains: CPU, batches of 1, 8 and 32.

    C2S_DATA=FOLDER python -m benchmarks.draft_speed [--passes-per-gene=1.64] [--width=4] [--new-tokens=48] [--turns=3]

Prints JSON. A small Gemma-2 with random weights samples gene lists under the grammar, with and without drafts, in
turns, in one process on one core; seconds are processor time, so that other programs on the machine count less. Random
weights agree with few drafts, so the gain is computed: tokens a gene (without drafts a pass each) over passes a gene
(from ``benchmarks.draft_replay``), times seconds a pass without drafts over seconds a pass with them.
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

os.environ |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax
import numpy as np
from flax import nnx

from benchmarks.grammar_overhead import MODEL, gene_names
from c2s_jax.generation import GeneDrafts, GeneGrammar, Sampler
from c2s_jax.models import Gemma2, Gemma2Config
from c2s_jax.parallel import make_mesh
from c2s_jax.text import GeneTokenTable, load_tokenizer

BATCHES = (1, 8, 32)
GENES = 20_000
TOKENS_PER_GENE = 3.397  # of the sentences of draft_replay


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 4), ("new-tokens", 48), ("turns", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--passes-per-gene", type=float, default=1.64, help="from draft_replay, for this width")
    arguments = parser.parse_args()
    data = Path(os.environ["C2S_DATA"])
    tokenizer = load_tokenizer(data / "tokenizer_gemma2")
    table = GeneTokenTable.build(tokenizer, gene_names(data, GENES))
    grammar = GeneGrammar.build(table, tokenizer.eos_id, exactly=arguments.new_tokens)
    drafts = GeneDrafts.build(
        table, grammar, np.arange(GENES)[::-1], width=arguments.width, vocab_size=tokenizer.vocab_size
    )
    graphdef, params = nnx.split(Gemma2(Gemma2Config(**MODEL), rngs=nnx.Rngs(0)))
    mesh, rng, found = make_mesh({"fsdp": 1}, jax.devices()[:1]), np.random.default_rng(0), {}
    for batch in BATCHES:
        sampler = Sampler(graphdef, stop_ids=(tokenizer.eos_id,), batch_size=batch, mesh=mesh)
        prompts = [rng.integers(1, 256_000, 32, np.int32) for _ in range(batch)]
        per_pass: dict[str, list[float]] = {"without": [], "with": []}
        for turn in range(arguments.turns + 1):
            for name, how in (("without", None), ("with", drafts)):
                options: Any = dict(max_new_tokens=arguments.new_tokens, grammar=grammar, drafts=how)
                began = time.process_time()
                samples = sampler(params, prompts, **options)
                if turn:  # the first compiles
                    per_pass[name].append((time.process_time() - began) / int(samples.passes.max()))
        middle = {name: median(x) for name, x in per_pass.items()}
        gain = TOKENS_PER_GENE / arguments.passes_per_gene * middle["without"] / middle["with"]
        found[batch] = {
            "seconds_per_pass": {name: round(x, 5) for name, x in middle.items()},
            "pass_with_relative_to_without": round(middle["with"] / middle["without"], 3),
            "speed_up": round(gain, 3),
        }
        print(batch, found[batch], file=sys.stderr, flush=True)
    sizes = vars(arguments) | {"model": MODEL, "genes": GENES, "tokens_per_gene": TOKENS_PER_GENE}
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    print(json.dumps({"benchmark": "draft_speed", "batches": found, "sizes": sizes, "versions": versions}, indent=2))


if __name__ == "__main__":
    main()
