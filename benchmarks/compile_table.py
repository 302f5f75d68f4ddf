"""What a training step takes of a chip: Gemma-2 on TPU slices, compiled ahead of time, beside MaxText's own step.

    JAX_PLATFORMS=cpu python -m benchmarks.compile_table --out=DIR [--only=maxtext | pods | int8] [--match=27b]

Each row is one call of ``c2s_jax.compile`` in a process of its own (minutes of CPU, 4 GB); its report is kept as a file
in DIR. A row that has its file is not compiled again, so that an interrupted table goes on. Prints the tables and, as
the last line, their rows as JSON. Needs libtpu, no TPU.

"GiB a chip" is the total of the compiler's buffer assignment and code. MaxText's figures (revision e591f30, jax 0.10.2,
libtpu 0.0.42.1) are of its own step compiled in the same way for the same topologies: pure FSDP, T = 8192, float32
weights and AdamW, bfloat16 compute, splash, full rematerialisation. The first is what is alive at its peak, the second
the sum of ``memory_analysis()``, which may hold donated arguments twice (``c2s_jax.aot.memory``): what it takes is
between the two.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GIB = 1 << 30
CHUNKS = ("--config.model.mlp_chunks=4",)
SMALLEST = ("--config.model.mlp_chunks=8",)
LORA = ("--config.lora.rank=16", "--config.init_from=released", "--config.model.param_dtype=bfloat16")


@dataclasses.dataclass(frozen=True)
class Row:
    """One step to compile; ``theirs`` is what MaxText's takes, GiB a chip: by `memory_analysis()`, and at its peak."""

    size: str
    topology: str
    rows: int = 1
    flags: tuple[str, ...] = ()
    theirs: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """Of its file."""
        text = "-".join((self.size, self.topology, str(self.rows), *(f.split(".")[-1] for f in self.flags)))
        return "".join(c if c.isalnum() or c in "-=." else "_" for c in text)


MAXTEXT = [
    Row("27b", "v5p:4x4x4", 1, SMALLEST, theirs=(19.8, 17.2)),
    Row("27b", "v5p:4x4x4", 2, CHUNKS, theirs=(30.3, 26.7)),
    Row("27b", "v5p-256", 1, CHUNKS, theirs=(21.4, 14.6)),
    Row("27b", "v6e-256", 1, CHUNKS, theirs=(20.8, 13.2)),
    Row("9b", "v5e-256", 1, theirs=(12.5, 7.5)),
    Row("9b", "v6e-64", 1, theirs=(14.0, 12.6)),
    Row("2b", "v5e-16", 1, theirs=(12.5, 11.7)),
    Row("2b", "v6e-8", 1, theirs=(14.4, 13.5)),
    Row("2b", "v4-8", 1, theirs=(18.8, 17.7)),
]
INT8 = [Row("27b", topology, 1, ("--config.products=int8",)) for topology in ("v5p-128", "v5e-256", "v6e-256")]
TOPOLOGIES = ("v4-128", "v5e-256", "v5p-128", "v5p-256", "v6e-256")
LARGEST = "v5p-8192"  # of 4096 chips, which the widths are no multiples of
REPLICAS = ("--config.mesh.replica=16",)
PODS = [
    Row(size, topology, 1, (*flags, *more))
    for size in ("2b", "9b", "27b")
    for flags in ((), LORA)
    for topology, more in (*((t, ()) for t in TOPOLOGIES), (LARGEST, REPLICAS))
]


def compiled(row: Row, folder: Path) -> dict | None:
    """The report of a row, from its file or by compiling; None where that fails."""
    file = folder / f"{row.name}.json"
    if not file.exists():
        print(f"compiling {row.name}", file=sys.stderr, flush=True)
        part = file.with_suffix(".part")
        command = [sys.executable, "-m", "c2s_jax.compile", f"--config=configs/{row.size}.py", f"--json={part}"]
        command += [f"--topology={row.topology}", f"--rows={row.rows}", *row.flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not part.exists():
            print(done.stderr[-2000:], file=sys.stderr, flush=True)
            return None
        part.rename(file)
    return json.loads(file.read_text())


def line(row: Row, report: dict) -> str:
    """One row of a table in Markdown."""
    gib = report["hbm_bytes_per_chip"] / GIB
    cells = [row.size, row.topology, f"{row.rows}", "LoRA" if report["adapter"] else "all", report["remat"]]
    cells[-1] += ", int8" if report["products"] == "int8" else ""
    cells += [f"{report['mlp_chunks']}", f"{gib:.1f} of {report['hbm_capacity_bytes'] / GIB:.1f}"]
    if row.theirs and "hbm_bytes" in report:
        total, at_peak = row.theirs
        cells += [f"{at_peak:.1f}", f"{gib / at_peak - 1:+.0%}", f"{total:.1f}", f"{gib / total - 1:+.0%}"]
    if "mfu_bound" in report:
        cells += [f"{report['mfu_bound_flops_only']:.1%}", f"{report['mfu_xla_cycles']:.1%}"]
        cells += [f"{report['step_seconds_estimate']:.2f}"]
    else:
        cells += [""] * (3 if row.theirs is None else 7)
    return "| " + " | ".join(cells) + " |"


def header(*titles: str) -> None:
    """Begin a table in Markdown."""
    print("\n| " + " | ".join(titles) + " |\n|" + "---|" * len(titles), flush=True)


def table(rows: list[Row], folder: Path) -> None:
    """Compile and print."""
    head = ["model", "slice", "rows a chip", "trained", "remat", "mlp_chunks", "GiB a chip"]
    head += ["MaxText's peak", "difference", "its sum", "difference"] if rows[0].theirs else []
    header(*head, "MFU bound, FLOPs only", "by XLA's cycles", "s a step, at best")
    for row in rows:
        if report := compiled(row, folder):
            print(line(row, report), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows' reports")
    parser.add_argument("--only", choices=["maxtext", "pods", "int8"], help="one of the tables")
    parser.add_argument("--match", default="", help="rows whose name has this in it")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    shown = []
    for name, rows in (("maxtext", MAXTEXT), ("pods", PODS), ("int8", INT8)):
        chosen = [row for row in rows if options.match in row.name]
        if chosen and options.only in (None, name):
            table(chosen, options.out)
            shown += [row.name for row in chosen]
    files = {name: options.out / f"{name}.json" for name in shown}
    print(json.dumps({name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}))


if __name__ == "__main__":
    main()
