"""The reward of a run: named parts, weighted and added up."""

import importlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from c2s_jax.rl.rewards import cells, energy, labels, population, ranks, simple, texts
from c2s_jax.rl.rewards.base import Completions, MakeReward, Reward, World

REWARDS: dict[str, MakeReward] = {
    "valid_genes": simple.valid_genes,
    "gene_overlap": simple.gene_overlap,
    "gene_count": simple.gene_count,
    "exact_match": simple.exact_match,
    "finished": simple.finished,
    "ontology_match": labels.ontology_match,
    "cell_mse": cells.cell_mse,
    "cell_energy": energy.cell_energy,
    "cell_scfid": population.cell_scfid,
    "gene_set_score": cells.gene_set_score,
    "kendall_tau": ranks.kendall_tau,
    "bert_score": texts.bert_score,
}


class Scored(NamedTuple):
    """Rewards of N completions.

    Attributes
    ----------
    total
        Weighted sum, float64 [N]; NaN for a masked completion.
    parts
        Each reward by name, unweighted, float64 [N].
    """

    total: NDArray[np.float64]
    parts: dict[str, NDArray[np.float64]]


class Rewards:
    """Several rewards as one.

    Parameters
    ----------
    settings
        By name: ``weight`` (default 1) and whatever the reward takes. A name is a key of ``REWARDS`` or, with the
        setting ``path``, any; ``path`` is ``package.module:function`` of a function that is called as those in
        ``REWARDS`` are.
    world
        What rewards look things up in.
    errors
        What becomes of a completion whose reward is not finite, or of all where one raises: ``"stop"`` or ``"mask"``.

    Raises
    ------
    ValueError
        No rewards, an unknown name, or settings that the reward does not take.
    """

    def __init__(
        self, settings: Mapping[str, Mapping[str, Any]], world: World, *, errors: Literal["stop", "mask"] = "stop"
    ):
        if not settings:
            raise ValueError(f"grpo.rewards is empty: name some of {', '.join(REWARDS)}, or give a path")
        self._errors = errors
        self.weights: dict[str, float] = {}
        self._rewards: dict[str, Reward] = {}
        for name, given in settings.items():
            own = dict(given)
            self.weights[name] = float(own.pop("weight", 1.0))
            make = _maker(name, own.pop("path", ""))
            try:
                self._rewards[name] = make(world, **own)
            except TypeError as error:
                raise ValueError(f"grpo.rewards.{name}: {error}") from error

    def __call__(self, completions: Completions) -> Scored:
        """Score completions.

        Raises
        ------
        ValueError
            A reward raised, gave the wrong shape or, unless masked, a number that is not finite; shows the completion.
        """
        parts = {name: self._one(name, reward, completions) for name, reward in self._rewards.items()}
        total = sum((self.weights[name] * values for name, values in parts.items()), np.zeros(len(completions)))
        return Scored(total, parts)

    def _one(self, name: str, reward: Reward, completions: Completions) -> NDArray[np.float64]:
        try:
            values = np.asarray(reward(completions), np.float64)
        except Exception as error:
            if self._errors == "mask":
                return np.full(len(completions), np.nan)
            raise ValueError(
                f"grpo.rewards.{name} raised {type(error).__name__}: {error}; the first of the {len(completions)} "
                f"completions: {_shown(completions, 0)}"
            ) from error
        if values.shape != (len(completions),):
            raise ValueError(
                f"grpo.rewards.{name} gave shape {values.shape} for {len(completions)} completions; it has to give one "
                "number for each"
            )
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size and self._errors == "stop":
            raise ValueError(
                f"grpo.rewards.{name} gave {values[bad[0]]} for completion {bad[0]}: "
                f"{_shown(completions, int(bad[0]))}\n"
                'Mend the reward, or set grpo.reward_errors="mask" to leave such completions out.'
            )
        values[bad] = np.nan
        return values


def _maker(name: str, path: str) -> MakeReward:
    if not path:
        if name not in REWARDS:
            raise ValueError(f"grpo.rewards.{name}: no such reward; there are {', '.join(REWARDS)}, or give its path")
        return REWARDS[name]
    module, _, function = path.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f'grpo.rewards.{name}.path={path!r} cannot be had ({error}); write "package.module:function"'
        ) from error


def _shown(completions: Completions, i: int) -> str:
    text = completions.texts[i]
    return repr(text if len(text) <= 300 else text[:300] + "…")
