"""What the backward pass keeps, by chip: the longest batch under each policy, and the policy chosen for one row.

    JAX_PLATFORMS=cpu python -m benchmarks.compile_policies --out=DIR [--only=tokens | chosen] [--match=v5p]
        [--sizes 27b 9b]

Compiles Gemma-2's own training step ahead of time (T = 8192, pure FSDP), by ``c2s_jax.compile``: for each policy of
``c2s_jax.models.remat`` rows a chip up to the last that fits, beginning where its shapes say that the end is; and for
one row a chip what ``--tune`` chooses. Every compilation is minutes of CPU and 4 GB, and is kept in DIR, so that an
interrupted table goes on. Prints the tables and, as the last line, JSON. Needs libtpu, no TPU.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.compile_table import GIB, Row, compiled, header
from c2s_jax.aot.search import kept_bytes
from c2s_jax.models import remat

TOPOLOGIES = ("v4-128", "v5e-256", "v5p-128", "v6e-256")


def report(row: Row, folder: Path) -> dict[str, Any]:
    """Of a row; ends the program where it does not compile."""
    found = compiled(row, folder)
    if found is None:
        sys.exit(f"error: {row.name} did not compile, see above")
    return found


def most_rows(size: str, topology: str, policy: str, folder: Path) -> int:
    """Rows of 8,192 tokens a chip that fit under a policy; 0 where one does not."""
    config = importlib.import_module(f"configs.{size}").get_config()

    def at(rows: int, policy: str = policy) -> dict[str, Any]:
        return report(Row(size, topology, rows, (f"--config.model.remat={policy}",)), folder)

    one, two = at(1, "full"), at(2, "full")
    if not one["fits"]:
        return 0
    room = one["hbm_capacity_bytes"] - one["hbm_bytes_per_chip"]
    a_row = two["hbm_bytes_per_chip"] - one["hbm_bytes_per_chip"] if two["fits"] else room
    more = kept_bytes(config, policy, 1)
    rows = max(1, int((room - more) / (a_row + more)) + 1)
    while rows and not at(rows)["fits"]:
        rows -= 1
    while rows and at(rows + 1)["fits"]:
        rows += 1
    return rows


def tokens(size: str, topology: str, folder: Path) -> dict[str, int]:
    """Tokens a chip by policy; a policy that keeps more than one that does not fit one row is not compiled."""
    found: dict[str, int] = {}
    for policy in remat.POLICIES:
        found[policy] = 8192 * most_rows(size, topology, policy, folder) if all(found.values()) else 0
    return found


def chosen(size: str, topology: str, folder: Path) -> dict[str, Any]:
    """The report of what ``--tune`` chooses."""
    first = report(Row(size, topology, 1, ("--tune",)), folder)
    variants = {variant["changes"]: variant for variant in first["variants"]}
    return variants.get(first["advice"], first) | {"tried": [v["remat"] for v in first["variants"]]}


def chosen_line(size: str, topology: str, r: dict[str, Any]) -> str:
    """A row of the second table in Markdown."""
    cells = [size.upper(), topology, f"`{r['remat']}`", ", ".join(f"`{p}`" for p in r["tried"] if p != r["remat"])]
    cells.append(f"{r['hbm_bytes_per_chip'] / GIB:.1f} of {r['hbm_capacity_bytes'] / GIB:.1f}")
    cells += [f"{r['mfu_bound_flops_only']:.1%}", f"{r['mfu_xla_cycles']:.1%}", f"{r['step_seconds_estimate']:.2f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the reports")
    parser.add_argument("--only", choices=["tokens", "chosen"], help="one of the tables")
    parser.add_argument("--match", default="", help="slices whose name has this in it")
    parser.add_argument("--sizes", nargs="+", default=["27b", "9b", "2b"], choices=["27b", "9b", "2b"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    steps = [(size, t) for size in options.sizes for t in TOPOLOGIES if options.match in t]
    found: dict[str, dict[str, Any]] = {f"{size} {topology}": {} for size, topology in steps}
    if options.only in (None, "tokens"):
        header("model", "slice", *(f"`{policy}`" for policy in remat.POLICIES))
        for size, topology in steps:
            counts = found[f"{size} {topology}"]["tokens"] = tokens(size, topology, options.out)
            cells = [size.upper(), topology, *(f"{n:,}" for n in counts.values())]
            print("| " + " | ".join(cells) + " |", flush=True)
    if options.only in (None, "chosen"):
        titles = ("GiB a chip", "MFU bound, FLOPs only", "by XLA's cycles", "s a step, at best")
        header("model", "slice", "chosen", "tried and refused", *titles)
        for size, topology in steps:
            best = found[f"{size} {topology}"]["chosen"] = chosen(size, topology, options.out)
            print(chosen_line(size, topology, best), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
