"""Makes the workload of ``cpu_vs_hf``: ``python -m benchmarks._build_workload FOLDER JSON``."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from numpy.typing import NDArray

from benchmarks._workload import STEPS, Examples, Workload
from c2s_jax.data import Corpus, Formatter, MixtureTask, PackedRows, request
from c2s_jax.models import Gemma2Config, make_model
from c2s_jax.models.hf import to_hf
from c2s_jax.tasks import load_templates
from c2s_jax.text import GeneTokenTable, load_tokenizer
from data_pipeline.bundled import prepare

TASKS = ("cell_sentence_modelling", "cell_type_annotation", "cell_type_conditioned_generation")


def build(folder: Path, settings: dict[str, Any]) -> None:
    """Write a random model (as Hugging Face's folder and as plain arrays), examples and prompts into ``folder``."""
    corpus_dir, tokenizer_path = prepare("pbmc68k_reduced", folder)
    corpus, tokenizer = Corpus(corpus_dir), load_tokenizer(tokenizer_path)
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
    cells = corpus.cells("train")

    config = Gemma2Config(**settings["model"], vocab_size=tokenizer.vocab_size)
    model = make_model(config, nnx.Rngs(0))
    vary(model)
    to_hf(model, folder / "model")
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    arrays: dict[str, Any] = {".".join(map(str, path)): np.asarray(p.get_value()) for path, p in state}
    np.savez(folder / "weights.npz", **arrays)

    # Sentences are cut to k genes, k log-uniform over the whole range, or left whole.
    longest = int(np.diff(cells.take(np.arange(len(cells))).indptr).max())
    tasks = [MixtureTask(name, max_genes=longest if settings["lengths"] == "spread" else None) for name in TASKS]
    shape = (settings["rows"], settings["seq_len"])
    stream = PackedRows(corpus, "train", tasks, formatter, seq_len=shape[1], rows_per_block=STEPS * shape[0])
    rows = {name: column.reshape(STEPS, *shape) for name, column in stream.block(0).items()}
    examples = [examples_of(*parts) for parts in zip(rows["tokens"], rows["segment_ids"])]
    sizes = settings["model"] | {"vocab_size": tokenizer.vocab_size}
    Workload(sizes, examples, rows, prompts(cells, formatter, settings["prompts"])).save(folder)


def vary(model: nnx.Module) -> None:
    """Norms that do something, and embeddings so small that greedy answers do not just repeat a prompt's last token."""
    rng = np.random.default_rng(0)

    def one(path: tuple[Any, ...], parameter: nnx.Variable) -> nnx.Variable:
        value = parameter.get_value()
        if path[-1] == "scale":
            return parameter.replace(value + 0.3 * rng.standard_normal(value.shape, np.float32))
        return parameter.replace(value / 4) if path[-1] == "embedding" else parameter

    nnx.update(model, nnx.map_state(one, nnx.state(model, nnx.Param)))


def examples_of(tokens: NDArray, segment_ids: NDArray) -> Examples:
    """The examples in packed rows."""
    pairs = ((row, ids == n) for row, ids in zip(tokens, segment_ids) for n in range(1, ids.max() + 1))
    return [row[where] for row, where in pairs]


def prompts(cells: Any, formatter: Formatter, number: int) -> Examples:
    """Prompts of cell-type-conditioned generation for the first cells, templates in turn."""
    templates = load_templates("cell_type_conditioned_generation")
    names = sorted({f for t in templates for f in t.fields} - {"cell_sentence", "num_genes"})
    columns = {name: cells.fields(name) for name in names}
    requests = [
        request(templates[i % len(templates)], {name: str(c[i]) for name, c in columns.items()}, 200)
        for i in range(number)
    ]
    made = formatter.prompts(requests, np.zeros(0, np.int32), np.zeros(number + 1, np.int64))
    return np.split(made.tokens, made.indptr[1:-1])


if __name__ == "__main__":
    build(Path(sys.argv[1]), json.loads(sys.argv[2]))
