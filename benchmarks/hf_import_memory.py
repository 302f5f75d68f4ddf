"""Host memory and time to import a Hugging Face checkpoint, beside ``transformers`` reading the same files.

    JAX_PLATFORMS=cpu python benchmarks/hf_import_memory.py [--layers 12] [--folder DIR]

Writes a synthetic bfloat16 Gemma-2 of the 2B's width, reads it in one child process each, and prints JSON. On the CPU
the model itself lies in host memory too; ``over_model`` is the peak beyond it and beyond what the process held before.
Anonymous memory is counted: mapped pages of the files are shared with the page cache, and are listed apart.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray


def make_checkpoint(folder: Path, layers: int) -> None:
    """A checkpoint of small random values, written tensor by tensor."""
    from flax import nnx

    from c2s_jax.models.architectures import make_model
    from c2s_jax.models.gemma2 import RELEASED, Gemma2Config
    from c2s_jax.models.hf_config import config_to_hf
    from c2s_jax.models.hf_tensors import hf_tensors
    from c2s_jax.models.safetensors_files import write_safetensors

    config = Gemma2Config(**{**RELEASED["2b"], "num_layers": layers, "param_dtype": "bfloat16"})
    model = nnx.eval_shape(lambda: make_model(config, nnx.Rngs(0)))
    noise = np.random.default_rng(0).normal(0, 0.02, 2**20 + 1).astype(ml_dtypes.bfloat16)

    def tensors() -> Iterator[tuple[str, NDArray]]:
        for t in hf_tensors(model):
            yield t.name, np.resize(noise, t.stored_shape)

    folder.mkdir(parents=True)
    write_safetensors(folder, tensors())
    (folder / "config.json").write_text(json.dumps(config_to_hf(config)))


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of all tensors and of the largest."""
    from c2s_jax.models.safetensors_files import SafetensorsFolder

    files = SafetensorsFolder(folder)
    each = [files.nbytes(name) for name in files.tensors]
    return {"model": sum(each), "largest_tensor": max(each)}


def resident() -> dict[str, int]:
    """Bytes of this process in memory: anonymous and mapped from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {key: 1024 * int(line.split()[1]) for line in lines for key in ("RssAnon", "RssFile") if key in line}


def measure(read: Callable[[], Any]) -> dict[str, float]:
    """Peaks over a call, above what was held before, and its seconds."""
    before, peak, done = resident(), {"RssAnon": 0, "RssFile": 0}, threading.Event()

    def sample() -> None:
        while not done.wait(0.01):
            peak.update({key: max(peak[key], value - before[key]) for key, value in resident().items()})

    sampler = threading.Thread(target=sample)
    sampler.start()
    began = time.monotonic()
    kept = read()
    seconds = time.monotonic() - began
    done.set()
    sampler.join()
    del kept
    return {"peak_anonymous": peak["RssAnon"], "peak_mapped": peak["RssFile"], "seconds": round(seconds, 1)}


def ours(folder: Path) -> Any:
    """Import by this package."""
    from flax import nnx

    from c2s_jax.models.hf import from_hf

    return nnx.state(from_hf(folder))


def theirs(folder: Path) -> Any:
    """Import by transformers."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    # Pages mapped from the files count as read only once they are touched.
    sum(float(p.detach().sum()) for p in model.parameters())
    return model


def child(name: str, folder: Path) -> dict[str, float]:
    """What one library needs, in a process of its own that has imported it."""
    if name == "ours":
        import jax

        import c2s_jax.models.hf  # noqa: F401

        jax.devices()
        return measure(lambda: ours(folder))
    import transformers  # noqa: F401

    return measure(lambda: theirs(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--folder", type=Path, help="where the checkpoint goes; a temporary folder by default")
    parser.add_argument("--child", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary) / "checkpoint"
        make_checkpoint(folder, arguments.layers)
        of = sizes(folder)
        rows = {}
        for name in ("ours", "theirs"):
            command = [sys.executable, __file__, f"--child={name}", f"--folder={folder}"]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows[name] = json.loads(output.splitlines()[-1])
            rows[name]["over_model"] = rows[name]["peak_anonymous"] - of["model"]
    print(
        json.dumps(
            {
                "benchmark": "hf_import_memory",
                "bytes": of,
                "ours": rows["ours"],
                "transformers": rows["theirs"],
                "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
                "versions": {n: importlib.metadata.version(n) for n in ("jax", "safetensors", "torch", "transformers")},
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
