"""A corpus in memory with perturbations, and completions about its cells."""

from collections.abc import Callable

import numpy as np
import pytest

from c2s_jax.rl.rewards import Completions, World
from tests.data.conftest import CellsInMemory, CorpusInMemory

GENES = ["CD3D", "CD8A", "GNLY", "IFI6", "ISG15", "MX1", "NKG7", "ACTB"]
LINE = dict(slope=-1.0, intercept=2.0, r2=1.0, r2_all=1.0, pearson=1.0, spearman=1.0, n=10, n_all=10)


@pytest.fixture
def corpus() -> CorpusInMemory:
    """Eight cells of two types, half of them stimulated; genes 3 to 5 answer to it."""
    rng = np.random.default_rng(0)
    lists, values, types, treatments = [], [], [], []
    for i in range(8):
        high = [3, 4, 5] if i % 2 else [0, 1, 6]
        genes = np.array([*high, 7, 2 if i < 4 else 0 if i % 2 else 3])
        lists.append(genes)
        values.append(np.sort(rng.uniform(0.5, 2, len(genes)))[::-1])
        types.append("T cell" if i < 4 else "NK cell")
        treatments.append("IFN-beta" if i % 2 else "control")
    cells = CellsInMemory(lists, values, {"cell_type": types, "perturbation": treatments})
    return CorpusInMemory(cells, GENES, [{"name": "a", "rank_expression": LINE}])


@pytest.fixture
def completions(corpus: CorpusInMemory) -> Callable[..., Completions]:
    """Completions of one prompt a cell given, two each."""

    def make(texts: list[str], cells: list[int], *, task: str = "perturbed_cell_generation", **changes) -> Completions:
        n = len(texts)
        stored = corpus.source.lists
        settings = dict(
            world=World(corpus, seed=1),
            texts=texts,
            references=[" ".join(GENES[g] for g in stored[c]) + "." for c in cells],
            tasks=[task] * n,
            cells=np.array(cells),
            numbers=np.arange(n),
            lengths=np.full(n, 5),
            truncated=np.zeros(n, bool),
            num_generations=2,
        )
        return Completions(**settings | changes)

    return make
