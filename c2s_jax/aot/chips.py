"""What accelerators can do, from their vendors' data sheets."""

import dataclasses

import jax

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one chip (one device of JAX).

    Attributes
    ----------
    name
        As users write it, e.g. "v5p".
    flops
        Dense bfloat16 FLOP/s.
    hbm
        Bytes that a program may use. On TPUs the compiler's own limit, which is below the nominal size.
    hbm_bandwidth
        Bytes/s.
    interconnect
        Bytes/s that leave a chip within its slice or node (ICI, NVLink), all links together, one way.
    int8
        The rate of products of 8-bit integers, as a multiple of ``flops``.
    clock
        Hz, for the compiler's estimates in cycles; 0 where there are none.
    """

    name: str
    flops: float
    hbm: int
    hbm_bandwidth: float
    interconnect: float
    int8: float = 2.0
    clock: float = 0.0


# By ``jax.Device.device_kind``. TPUs: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}; GPUs: NVIDIA's data sheets (SXM).
CHIPS: dict[str, Chip] = {
    "TPU v4": Chip("v4", 275e12, int(31.75 * GIB), 1228e9, 150e9, int8=1.0, clock=1.05e9),
    "TPU v5 lite": Chip("v5e", 197e12, int(15.75 * GIB), 819e9, 200e9, clock=1.5e9),
    "TPU v5": Chip("v5p", 459e12, int(95.74 * GIB), 2765e9, 600e9, clock=1.75e9),
    "TPU v6 lite": Chip("v6e", 918e12, int(31.25 * GIB), 1640e9, 400e9, clock=1.75e9),
    "NVIDIA A100-SXM4-40GB": Chip("a100-40gb", 312e12, 40 * 10**9, 1555e9, 300e9),
    "NVIDIA A100-SXM4-80GB": Chip("a100-80gb", 312e12, 80 * 10**9, 2039e9, 300e9),
    "NVIDIA H100 80GB HBM3": Chip("h100", 989.4e12, 80 * 10**9, 3350e9, 450e9),
    "NVIDIA H200": Chip("h200", 989.4e12, 141 * 10**9, 4800e9, 450e9),
    "NVIDIA B200": Chip("b200", 2250e12, 180 * 10**9, 8000e9, 900e9),
}


def chip(device: jax.Device) -> Chip | None:
    """Peaks of a device; None where they are not known, e.g. of a CPU."""
    return CHIPS.get(device.device_kind)
