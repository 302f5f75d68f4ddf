"""What the backward pass of a layer finds in memory, fetches from the host or computes again.

The values of a layer worth a decision have names (``NAMES``); a specification says for each where it waits:
``"mlp=device,context=offload"`` keeps the first in the accelerator's memory, the second in the host's, and has all
others recomputed. ``POLICIES`` are specifications with names of their own, from least memory to least work.
"""

import difflib
from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

NAMES = {
    "input": "hidden states that enter the layer; kept on the device unless it says otherwise",
    "q": "queries after rotation",
    "k": "keys after rotation",
    "v": "values",
    "context": "what attention gives, before the output projection; with the splash kernel also its log-sum-exp",
    "attention": "the output projection of attention",
    "gate": "the gating product of the feed-forward network, before its activation (Gemma-2)",
    "up": "the other product that enters the feed-forward network",
    "product": "what leaves the activation",
    "mlp": "the output projection of the feed-forward network",
}
PLACES = ("device", "offload", "remat")
SCOPES = ("layer", "block", "both")

_NARROW = ",".join(f"{name}=device" for name in ("q", "k", "v", "context", "attention", "mlp"))
POLICIES: dict[str, str] = {
    # A unit of "mlp" spares the most work of all (a product over the feed-forward dimension), then "context".
    "full": "",
    "outputs": "mlp=device,context=device",
    "narrow": _NARROW,
    "narrow_gate0": f"{_NARROW},0.gate=device",
    "narrow_gate": f"{_NARROW},gate=device",
    "narrow_gate_up0": f"{_NARROW},gate=device,0.up=device",
    "dots": f"{_NARROW},gate=device,up=device",
}
"""By memory, least first. Those with a number differ between the layers of a block."""


def parse(spec: str, layer: int = 0) -> dict[str, str]:
    """Place of each value that a policy or a specification names, in layer ``layer`` of its block.

    Parameters
    ----------
    spec
        A key of ``POLICIES``, or comma-separated ``name=place``; ``1.name=place`` is for the second layer of a block
        alone (Gemma-2's blocks are a local and a global layer). Later entries win.

    Raises
    ------
    ValueError
        An unknown policy, name or place; tells which there are.
    """
    places: dict[str, str] = {}
    text = POLICIES.get(spec, spec)
    if text and "=" not in text:
        near = difflib.get_close_matches(text, ("none", *POLICIES), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"model.remat={spec!r} is not one of none, {', '.join(POLICIES)}, and no list of name=place{hint}"
        )
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, place = (part.strip() for part in entry.partition("="))
        number, dot, rest = name.partition(".")
        name = rest if dot else name
        if name not in NAMES:
            raise ValueError(f"model.remat={spec!r}: no value is called {name!r}; there are {', '.join(NAMES)}")
        if place not in PLACES:
            raise ValueError(f"model.remat={spec!r}: {name} can be {', '.join(PLACES)}, not {place!r}")
        if dot and not number.isdigit():
            raise ValueError(f"model.remat={spec!r}: {entry!r} should begin with the number of a layer in its block")
        if not dot or int(number) == layer:
            places[name] = place
    return places


def checkpointed(function: Callable[..., Any], spec: str, *, layer: int = 0, barrier: bool = False) -> Any:
    """``function`` with what its backward pass keeps chosen by ``spec``; "none" leaves that to JAX, which keeps all.

    Parameters
    ----------
    barrier
        Let the compiler begin to recompute only when the gradient of the result is there; less memory, as no two
        functions of one loop body are recomputed at once.
    """
    if spec == "none":
        return function
    places = parse(spec, layer)
    chosen = {place: [name for name, at in places.items() if at == place] for place in PLACES}
    policies = jax.checkpoint_policies
    policy = None
    if chosen["offload"]:
        policy = policies.save_and_offload_only_these_names(
            names_which_can_be_saved=chosen["device"],
            names_which_can_be_offloaded=chosen["offload"],
            offload_src="device",
            offload_dst="pinned_host",
        )
    elif chosen["device"]:
        policy = policies.save_only_these_names(*chosen["device"])
    return jax.checkpoint(function, policy=policy, prevent_cse=barrier)


def named(name: str, x: jax.Array) -> jax.Array:
    """``x`` under a name of ``NAMES``."""
    assert name in NAMES, name
    return checkpoint_name(x, name)
