"""The gene grammar against all lists there are, and in the sampler."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from c2s_jax.generation import GeneGrammar, Sampler, Sampling
from c2s_jax.generation.sampling import NEVER
from c2s_jax.parallel import make_mesh, parameter_shardings
from tests.generation.tiny import Teacher, TinyModel, distribution, one_device
from tests.generation.toy_names import END, PIECES, all_lists, table_of

NAMES = st.lists(st.text("ABC", min_size=1, max_size=4), min_size=1, max_size=4, unique=True)


def walk_all_ways(grammar: GeneGrammar, lists: set[tuple[int, ...]], seed: int) -> int:
    """Walk at random, several rows side by side, and compare what may come with the lists; tokens compared."""
    rng, rows, compared = np.random.default_rng(seed), 3, 0
    walk, symbols = grammar.start(rows), np.asarray(grammar.symbols)
    history: list[list[int]] = [[] for _ in range(rows)]
    live = np.ones(rows, bool)
    while live.any():
        logits = jnp.broadcast_to(jnp.arange(len(symbols), dtype=jnp.float32), (rows, len(symbols)))
        found = np.asarray(grammar.candidates(walk, logits))
        index = np.zeros(rows, np.int32)
        for row in np.flatnonzero(live):
            allowed = np.flatnonzero(found[row] > NEVER)
            tokens = symbols[found[row, allowed].astype(int)]  # the logit of a symbol is its number
            wanted = {x[len(history[row])] for x in lists if list(x[: len(history[row])]) == history[row]}
            assert sorted(tokens) == sorted(wanted), history[row]
            index[row] = rng.choice(allowed)
            compared += 1
        token, walk = grammar.take(walk, jnp.asarray(index), jnp.asarray(live))
        for row in np.flatnonzero(live):
            assert token[row] == symbols[int(found[row, index[row]])]
            history[row].append(int(token[row]))
            live[row] = token[row] != END
    assert {tuple(h) for h in history} <= lists
    return compared


@settings(max_examples=15, deadline=None)
@given(
    names=NAMES,
    data=st.data(),
    leading=st.sampled_from(["space", "bare"]),
    trailing=st.sampled_from(["period", "plain"]),
)
def test_allows_what_lists_there_are(names: list[str], data: st.DataObject, leading: str, trailing: str) -> None:
    """At every step exactly the tokens that some list continues with, whatever names are prefixes of others."""
    k = data.draw(st.integers(1, len(names)))
    mode = data.draw(st.sampled_from(["exactly", "at_most"]))
    grammar = GeneGrammar.build(table_of(names), END, leading=leading, trailing=trailing, **{mode: k})
    sizes = [k] if mode == "exactly" else list(range(1, k + 1))
    assert walk_all_ways(grammar, all_lists(names, sizes, leading, trailing), seed=k) > 0


# Names that begin others, and periods that merge with the last letter ("▁B." and "C.").
GENES = ["A", "AB", "ABC", "B", "BC", "C", "CABC"]


@pytest.fixture(scope="module")
def sampler(model: TinyModel) -> Sampler:
    return Sampler(model[0], stop_ids=(END,), batch_size=10, mesh=one_device())


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_p=0.7)], ids=str)
def test_in_the_sampler(
    model: TinyModel, prompts: list[NDArray], teacher: Teacher, sampler: Sampler, sampling: Sampling
) -> None:
    """Numbers of genes of each prompt's own; log-probabilities are those of the model under the brute-force mask."""
    numbers = [1, 2, 3, 2, 1]
    grammar = GeneGrammar.build(table_of(GENES), END, exactly=1).with_genes(numbers)
    found = sampler(
        model[1], prompts, max_new_tokens=14, sampling=sampling, seed=3, samples_per_prompt=2, grammar=grammar
    )
    assert found.stopped.all()
    for row, (tokens, logprobs) in enumerate(zip(found.tokens, found.logprobs)):
        prompt, lists = prompts[row // 2], all_lists(GENES, [numbers[row // 2]])
        answer = tokens[: found.lengths[row]]
        assert tuple(answer) in lists
        logits = teacher(np.concatenate([prompt, answer]))[len(prompt) - 1 : -1].astype(np.float64)
        for i, token in enumerate(answer):
            allowed = {x[i] for x in lists if x[:i] == tuple(answer[:i])}
            masked = np.where(np.isin(np.arange(logits.shape[1]), list(allowed)), logits[i], -np.inf)
            np.testing.assert_allclose(logprobs[i], distribution(masked, sampling)[token], rtol=0, atol=1e-4)
    if sampling == Sampling():
        assert len({tuple(row) for row in found.tokens}) > len(prompts)


def test_all_genes_of_a_subset_once(model: TinyModel, prompts: list[NDArray], sampler: Sampler) -> None:
    """As many genes as there are: each comes once, also when the model would rather stop or repeat."""
    genes = [0, 2, 3, 6]
    grammar = GeneGrammar.build(table_of(GENES), END, genes=genes, exactly=len(genes))
    found = sampler(model[1], prompts, max_new_tokens=16, grammar=grammar)
    for answer in found.texts(lambda ids: "".join(PIECES[i] for i in ids)):
        assert answer.endswith(".")
        assert sorted(answer[:-1].replace("▁", " ").split()) == sorted(GENES[g] for g in genes)


def test_one_program_for_all_numbers(model: TinyModel, prompts: list[NDArray], sampler: Sampler) -> None:
    grammar, before = GeneGrammar.build(table_of(GENES), END, exactly=2), sampler.compiled
    for numbers in (2, 5):
        sampler(model[1], prompts, max_new_tokens=3, grammar=grammar.with_genes(numbers))
    assert sampler.compiled == before + 1


def test_bad_grammars(model: TinyModel, prompts: list[NDArray], sampler: Sampler) -> None:
    table = table_of(GENES)
    with pytest.raises(ValueError, match="not both"):
        GeneGrammar.build(table, END, exactly=2, at_most=3)
    with pytest.raises(ValueError, match="at most 7 genes"):
        GeneGrammar.build(table, END, exactly=8)
    with pytest.raises(ValueError, match="at least one gene"):
        GeneGrammar.build(table, END, genes=[])
    with pytest.raises(ValueError, match="token 11 is part of a name"):
        GeneGrammar.build(table, PIECES.index("BC"))
    grammar = GeneGrammar.build(table, END, exactly=2)
    with pytest.raises(ValueError, match="for 2 prompts; there are 5"):
        sampler(model[1], prompts, max_new_tokens=3, grammar=grammar.with_genes([1, 2]))
    with pytest.raises(ValueError, match="ends lists with token 0"):
        sampler(model[1], prompts, max_new_tokens=3, grammar=GeneGrammar.build(table, 0, exactly=2))


def test_spread_over_devices(model: TinyModel, prompts: list[NDArray], sampler: Sampler) -> None:
    mesh = make_mesh({"fsdp": 4, "tensor": 2}, jax.devices()[:8])
    params = jax.device_put(model[1], parameter_shardings(model[1], mesh))
    spread = Sampler(model[0], stop_ids=(END,), batch_size=8, mesh=mesh)
    grammar = GeneGrammar.build(table_of(GENES), END, at_most=3)
    options: Any = dict(max_new_tokens=14, sampling=Sampling(temperature=0), grammar=grammar)
    np.testing.assert_array_equal(
        spread(params, prompts, **options).tokens, sampler(model[1], prompts, **options).tokens
    )
