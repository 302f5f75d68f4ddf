"""What a pass over drafted tokens costs, and what drafting gene names gains: CPU, batches of 1, 8 and 32.

    C2S_DATA=FOLDER python -m benchmarks.draft_speed [--new-tokens=48] [--turns=5]

Prints JSON. A small Gemma-2 with random weights samples gene lists under the grammar, without drafts and with drafts of
each width, in turns, in one process; seconds are wall-clock. Random weights agree with few drafts, so the gain is
computed: tokens a gene (without drafts a pass each) over passes a gene (of ``benchmarks.draft_replay``, on real
sentences), times seconds a pass without drafts over seconds a pass with them. That is the most there is to gain: a
model that knows what it writes by heart.
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
from c2s_jax.generation import GeneDrafts, GeneGrammar, Sampler
from c2s_jax.models import Gemma2, Gemma2Config
from c2s_jax.parallel import make_mesh
from c2s_jax.text import GeneTokenTable, load_tokenizer

BATCHES = (1, 8, 32)
GENES = 20_000
TOKENS_PER_GENE = 3.397  # of the sentences of draft_replay
PASSES_PER_GENE = {2: 1.85, 4: 1.64}  # by width, from draft_replay


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new-tokens", type=int, default=48, help="tokens of an answer")
    parser.add_argument("--turns", type=int, default=5, help="of each side")
    arguments = parser.parse_args()
    data = Path(os.environ["C2S_DATA"])
    tokenizer = load_tokenizer(data / "tokenizer_gemma2")
    table = GeneTokenTable.build(tokenizer, gene_names(data, GENES))
    grammar = GeneGrammar.build(table, tokenizer.eos_id, exactly=arguments.new_tokens)
    common: Any = dict(vocab_size=tokenizer.vocab_size)
    sides: dict[int, GeneDrafts | None] = {0: None}
    for width in PASSES_PER_GENE:
        sides[width] = GeneDrafts.build(table, grammar, np.arange(GENES)[::-1], width=width, **common)
    graphdef, params = nnx.split(Gemma2(Gemma2Config(**MODEL), rngs=nnx.Rngs(0)))
    mesh, rng, found = make_mesh({"fsdp": 1}, jax.devices()[:1]), np.random.default_rng(0), {}
    for batch in BATCHES:
        sampler = Sampler(graphdef, stop_ids=(tokenizer.eos_id,), batch_size=batch, mesh=mesh)
        prompts = [rng.integers(1, 256_000, 32, np.int32) for _ in range(batch)]
        per_pass: dict[int, list[float]] = {width: [] for width in sides}
        for turn in range(arguments.turns + 1):
            for width, drafts in sides.items():
                began = time.perf_counter()
                samples = sampler(params, prompts, max_new_tokens=arguments.new_tokens, grammar=grammar, drafts=drafts)
                if turn:  # the first compiles
                    per_pass[width].append((time.perf_counter() - began) / int(samples.passes.max()))
        middle = {width: median(x) for width, x in per_pass.items()}
        found[batch] = {"seconds_per_pass_without": round(middle[0], 5)}
        for width, passes in PASSES_PER_GENE.items():
            cost = middle[width] / middle[0]
            gain = TOKENS_PER_GENE / passes / cost
            found[batch][f"width_{width}"] = {"pass_relative_to_without": round(cost, 3), "speed_up": round(gain, 3)}
        print(batch, found[batch], file=sys.stderr, flush=True)
    sizes = vars(arguments) | {"model": MODEL, "genes": GENES, "tokens_per_gene": TOKENS_PER_GENE}
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    print(json.dumps({"benchmark": "draft_speed", "batches": found, "sizes": sizes, "versions": versions}, indent=2))


if __name__ == "__main__":
    main()
