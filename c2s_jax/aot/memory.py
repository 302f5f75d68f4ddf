"""What a compiled program takes of one device's memory."""

import re
import tempfile
from pathlib import Path
from typing import Any

import jax


def compile_measured(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, dict[str, int]]:
    """Compile, and tell the bytes of one device by kind.

    ``total`` is what has to be there for the program to run: ``arguments``, ``outputs`` less those ``aliased`` to
    arguments, ``temporaries`` and ``code``. ``peak`` is the compiler's figure of what is alive at once: without the
    places that stay empty between live values, but with what is in the chip's fast memory. ``host`` is of the host's.

    Temporaries are those of the compiler's buffer assignment, which it writes into a file where it is asked to. In
    ``Compiled.memory_analysis()`` they are more: libtpu counts arguments among them when they are donated, so that its
    sum grows by donating.

    Raises
    ------
    jax.errors.JaxRuntimeError
        What the compiler refuses, for want of memory among others.
    """
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder})
        assigned = _assigned(Path(folder))
    m: Any = compiled.memory_analysis()
    used = {
        "arguments": m.argument_size_in_bytes,
        "outputs": m.output_size_in_bytes,
        "aliased": m.alias_size_in_bytes,
        "code": m.generated_code_size_in_bytes,
    }
    held = used["arguments"] + used["outputs"] - used["aliased"]
    used["temporaries"] = m.temp_size_in_bytes if assigned is None else max(0, assigned - held)
    more = {"host": m.host_temp_size_in_bytes + m.host_argument_size_in_bytes, "peak": m.peak_memory_in_bytes}
    return compiled, used | more | {"total": held + used["temporaries"] + used["code"]}


def _assigned(folder: Path) -> int | None:
    """Bytes of HBM in the largest of the buffer assignments that were written; None without one."""
    sizes = []
    for file in folder.glob("*memory-usage-report.txt"):
        if found := re.search(r"Memory Space: default.*\n\s*Total bytes: (\d+)", file.read_text()):
            sizes.append(int(found[1]))
    return max(sizes, default=None)
