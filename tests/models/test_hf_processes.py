"""Import on two processes: each reads the parts that its devices hold, and no more."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.hf_checkpoints import KINDS, hf_model

CHILD = """
import json, sys
import jax
folder, port, process = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
from functools import partial
import numpy as np
from flax import nnx
from c2s_jax.models.hf import from_hf
from c2s_jax.models.safetensors_files import SafetensorsFolder
from c2s_jax.parallel import make_mesh, parameter_shardings

whole = dict(nnx.to_flat_state(nnx.state(from_hf(folder))))
read, seen = SafetensorsFolder.read, []
def counted(self, name, index=None):
    seen.append(read(self, name, index))
    return seen[-1]
SafetensorsFolder.read = counted
mesh = make_mesh({"fsdp": 2, "tensor": 2})
model = from_hf(folder, shardings=partial(parameter_shardings, mesh=mesh))
for path, variable in nnx.to_flat_state(nnx.state(model)):
    for shard in variable.get_value().addressable_shards:
        np.testing.assert_array_equal(shard.data, np.asarray(whole[path].get_value())[shard.index], err_msg=str(path))
sizes = {"model": sum(v.get_value().size for v in whole.values()), "read": sum(x.size for x in seen)}
sizes["norms"] = sum(v.get_value().size for path, v in whole.items() if "norm" in ".".join(path) or path[-1] == "bias")
print(json.dumps(sizes))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_each_process_reads_its_part(kind: str, tmp_path: Path) -> None:
    hf_model(kind).save_pretrained(tmp_path, max_shard_size="20KB")
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = str(s.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), port, str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in range(2)
    ]
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        sizes = json.loads(output.splitlines()[-1])
        # Of matrices, half: the other fsdp row is the other process's. Norms and some biases are on every device.
        assert sizes["read"] <= sizes["model"] / 2 + sizes["norms"]
        assert sizes["read"] < 0.6 * sizes["model"]
