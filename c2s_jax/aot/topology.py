"""Devices of a TPU slice that is not there, to compile for."""

import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

CORES_IN_NAME = {"v4": 2, "v5p": 2, "v5e": 1, "v6e": 1}  # "v5p-128" counts TensorCores, "v5e-256" chips
SHAPES = {  # of slices named by size, as Cloud TPU makes them
    2: {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    3: {
        4: "2x2x1",
        8: "2x2x2",
        16: "2x2x4",
        32: "2x4x4",
        64: "4x4x4",
        128: "4x4x8",
        256: "4x8x8",
        512: "8x8x8",
        1024: "8x8x16",
        2048: "8x16x16",
        4096: "16x16x16",
    },
}
EXTRA = {"v4": {"chip_config_name": "megacore"}}  # both cores of a chip as one device, as JAX sees them
HELP = '"v5p:4x4x4", "v5p-128" or, for several slices, "2*v5e:16x16"'


def parse(text: str) -> tuple[int, str, str]:
    """Number of slices, generation and shape of a topology such as "v5p:4x4x4", "v5p-128" or "2*v5e-256".

    Raises
    ------
    ValueError
        A name that is none, or a size that no slice has.
    """
    match = re.fullmatch(r"(?:(\d+)\*)?(v\w+)(?::([\dx]+)|-(\d+))", text.strip())
    if not match or match[2] not in CORES_IN_NAME:
        raise ValueError(f"topology {text!r} is none; write {HELP}; generations are {', '.join(CORES_IN_NAME)}")
    slices, generation, shape, size = int(match[1] or 1), match[2], match[3], match[4]
    if shape is None:
        cores = CORES_IN_NAME[generation]
        known = SHAPES[3 if cores == 2 else 2]
        if int(size) % cores or int(size) // cores not in known:
            sizes = ", ".join(str(n * cores) for n in known)
            raise ValueError(f"topology {text!r}: {generation} has no slice of that size; there are {sizes}")
        shape = known[int(size) // cores]
    return slices, generation, shape


def n_chips(text: str) -> int:
    """Chips of a topology, each of which JAX sees as one device; needs no compiler."""
    slices, _, shape = parse(text)
    return slices * math.prod(map(int, shape.split("x")))


def devices(text: str) -> list[jax.Device]:
    """Devices of a topology, of which none needs to exist.

    Raises
    ------
    ValueError
        No such topology, or the compiler for TPUs (the extra ``c2s_jax[tpu]``) is not installed.
    """
    slices, generation, shape = parse(text)
    # The compiler's library asks for a TPU machine's metadata and for a lock on the TPU; there is none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    extra: dict[str, Any] = dict(EXTRA.get(generation, {}))
    if shape == "1x1":  # the only slice smaller than a host
        extra["chips_per_host_bounds"] = (1, 1, 1)
    try:
        topology = topologies.get_topology_desc(f"{generation}:{shape}", platform="tpu", num_slices=slices, **extra)
    except (RuntimeError, NotImplementedError) as error:
        hint = ""
        if any(word in str(error).lower() for word in ("libtpu", "plugin", "not installed")):
            hint = '; compiling for TPUs needs libtpu: pip install "c2s_jax[tpu]"'
        raise ValueError(f"topology {text!r} cannot be had: {error}{hint}") from error
    return list(topology.devices)
