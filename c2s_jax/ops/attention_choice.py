"""Which backend of ``attend`` suits a device and a model."""

from importlib.util import find_spec
from typing import NamedTuple

import jax

from c2s_jax.ops import attention_cudnn as cudnn
from c2s_jax.ops import attention_mosaic as mosaic
from c2s_jax.ops import attention_splash as splash
from c2s_jax.ops.attention_kernels import HALF

HOPPER = 9  # major compute capability
BEFORE_SPLASH = ("TPU v2", "TPU v3")  # their matrix units lack the kernel's bfloat16 products


class Choice(NamedTuple):
    """A backend of ``attend`` and, in words for a log, why."""

    backend: str
    reason: str


def choose_backend(
    device: jax.Device, *, head_dim: int, dtype: str, softcap: float | None = None, packed: bool = True
) -> Choice:
    """Fastest backend of ``attend`` that is exact for a model on a device.

    Nothing is run and no GPU library is loaded; ``device`` may also be one of a topology that is compiled for ahead
    of time.

    Parameters
    ----------
    device
        Device that the model will run on, e.g. ``mesh.devices.flat[0]``.
    head_dim
        Dimensions of a head, E.
    dtype
        Activation dtype.
    softcap
        Soft cap of attention scores.
    packed
        Whether rows hold several examples.
    """
    if device.platform == "tpu":
        return _on_tpu(device.device_kind, head_dim)
    if device.platform == "gpu":
        return _on_gpu(device, head_dim, dtype, softcap, packed)
    return Choice("xla", f"no kernel is written for {device.device_kind}")


def _on_tpu(kind: str, head_dim: int) -> Choice:
    if kind.startswith(BEFORE_SPLASH):
        return Choice("xla", f"{kind} is older than the splash kernel")
    if head_dim > splash.MAX_HEAD_DIM:
        return Choice("xla", f"head_dim {head_dim} is above splash's {splash.MAX_HEAD_DIM}")
    return Choice("splash", f"{kind} runs the splash kernel")


def _on_gpu(device: jax.Device, head_dim: int, dtype: str, softcap: float | None, packed: bool) -> Choice:
    kind = device.device_kind
    major = str(getattr(device, "compute_capability", "")).split(".")[0]
    if not major.isdigit():
        return Choice("xla", f"{kind} is no NVIDIA GPU")
    if dtype not in HALF:
        return Choice("xla", f"GPU kernels compute in {' or '.join(HALF)}, not {dtype}")
    hint = ""
    if int(major) == HOPPER and head_dim <= mosaic.MAX_HEAD_DIM:
        if find_spec("tokamax"):
            return Choice("mosaic", f"{kind} is a Hopper GPU and tokamax is installed")
        hint = "; with tokamax, mosaic would do"
    if softcap is not None:
        return Choice("xla", f"cuDNN has no soft cap{hint}")
    if packed:
        return Choice("xla", f"cuDNN would hold a T x T bias for each packed row{hint}")
    if head_dim % 8 or head_dim > cudnn.max_head_dim(int(major)):
        return Choice("xla", f"cuDNN has no attention of head_dim {head_dim} on {kind}{hint}")
    return Choice("cudnn", f"{kind} runs cuDNN's attention{hint}")
