"""Memory and time to build a corpus from a large .h5ad file.

    python benchmarks/corpus_memory.py --cells=1000000 --workers=2 [--input=FILE.h5ad]

Makes the file (synthetic_atlas.py) unless it is given, builds a corpus from it with the command line tool in a child
process, and prints JSON. Memory is that of all processes of the build together, sampled: private memory, and
resident memory with what is shared counted in each process.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import synthetic_atlas

SAMPLE_SECONDS = 0.2


def processes(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it has just ended
    return found


def resident(pid: int) -> tuple[int, int]:
    """Anonymous and all resident bytes of a process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    kept = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "VmRSS"))}
    return kept.get("RssAnon", 0), kept.get("VmRSS", 0)


def measured(command: list[str]) -> dict[str, float]:
    """Run a command; its seconds and the peaks of its memory in bytes."""
    began = time.monotonic()
    peaks = {"peak_private": 0, "peak_resident": 0, "peak_resident_of_one": 0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            each = [resident(pid) for pid in processes(child.pid)]
            now = (sum(a for a, _ in each), sum(r for _, r in each), max((r for _, r in each), default=0))
            peaks = {name: max(peak, value) for (name, peak), value in zip(peaks.items(), now, strict=True)}
            time.sleep(SAMPLE_SECONDS)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": time.monotonic() - began, "processor_seconds": used.ru_utime + used.ru_stime, **peaks}


def report(corpus: Path, found: dict[str, float], workers: int) -> dict[str, Any]:
    """What is printed."""
    manifest = json.loads((corpus / "manifest.json").read_text())
    line = json.loads((corpus / "datasets.jsonl").read_text().splitlines()[0])
    counts, size = line["counts"], sum(entry["bytes"] for entry in manifest["files"].values())
    return {
        "cells": counts["cells"],
        "genes": counts["genes"],
        "genes_a_cell": counts["expressed"] / counts["cells"],
        "workers": workers,
        "seconds": round(found["seconds"], 1),
        "cells_per_second": round(counts["cells"] / found["seconds"]),
        "processor_seconds": round(found["processor_seconds"], 1),
        "cells_per_processor_second": round(counts["cells"] / found["processor_seconds"]),
        **{f"{name}_mib": round(found[name] / 2**20) for name in found if name.startswith("peak")},
        "corpus_bytes_a_cell": round(size / counts["cells"]),
        "shards": {name: len(lengths) for name, lengths in manifest["shards"].items()},
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="an .h5ad file; made if it is not given")
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--compression", choices=["gzip", "lzf", "none"], default="gzip")
    parser.add_argument("--distinct", type=int, help="see synthetic_atlas.py")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        source = given.input or Path(folder) / "atlas.h5ad"
        if given.input is None:
            compression = None if given.compression == "none" else given.compression
            synthetic_atlas.write(source, given.cells, given.genes, 30, 20, 0, compression, given.distinct)
        corpus = Path(folder) / "corpus"
        command = [sys.executable, "-m", "data_pipeline.build", f"--input={source}", f"--output={corpus}"]
        command += ["--label_column=cell_type", "--columns=donor=donor", f"--workers={given.workers}"]
        print(json.dumps(report(corpus, measured(command), given.workers), indent=1))


if __name__ == "__main__":
    main()
