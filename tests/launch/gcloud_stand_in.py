#!/usr/bin/env python3
"""A ``gcloud`` for tests: records its arguments, plays back states, runs ssh commands in a folder for each host.

Everything lies in ``$STAND_IN``: ``calls.jsonl`` (argv by line), ``states.json`` (answers of ``queued-resources
describe``, the last stays; NONE after ``delete``), ``created.json`` (those after ``create``), ``refuse.json`` (verbs
that fail, and how many times), ``silent`` (nodes that no ssh reaches), ``hosts/NODE/WORKER`` (home of each host).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ["STAND_IN"])
WORKERS = int(os.environ.get("STAND_IN_WORKERS", "2"))


def flag(arguments: list[str], name: str) -> str:
    return next((a.split("=", 1)[1] for a in arguments if a.startswith(f"--{name}=")), "")


def next_state() -> str:
    path = ROOT / "states.json"
    states = json.loads(path.read_text())
    if len(states) > 1:
        path.write_text(json.dumps(states[1:]))
    return states[0]


def homes(node: str, worker: str) -> list[Path]:
    workers = range(WORKERS) if worker == "all" else [int(worker or 0)]
    found = [ROOT / "hosts" / node / str(i) for i in workers]
    for home in found:
        home.mkdir(parents=True, exist_ok=True)
    return found


def refused(verb: str) -> bool:
    path = ROOT / "refuse.json"
    left = json.loads(path.read_text()) if path.exists() else {}
    if not left.get(verb):
        return False
    path.write_text(json.dumps(left | {verb: left[verb] - 1}))
    return True


def describe(verb: str) -> int:
    if verb == "tpu-vm":
        nodes = ROOT / "node_state"
        print(nodes.read_text() if nodes.exists() else "READY")
        return 0
    state = next_state()
    if state == "NONE":
        print("ERROR: (gcloud) NOT_FOUND: Resource was not found.", file=sys.stderr)
        return 1
    if state == "OFFLINE":
        print("ERROR: network is unreachable", file=sys.stderr)
        return 1
    print(state)
    return 0


def on_hosts(node: str, arguments: list[str]) -> int:
    silent = ROOT / "silent"
    if silent.exists() and node in silent.read_text().split():
        print("ERROR: connection timed out", file=sys.stderr)
        return 255
    worst = 0
    for home in homes(node, flag(arguments, "worker")):
        environment = {**os.environ, "HOME": str(home), "PATH": f"{ROOT / 'host_bin'}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", flag(arguments, "command")], cwd=home, env=environment, check=False)
        worst = max(worst, done.returncode)
    return worst


def main() -> int:
    arguments = sys.argv[1:]
    with open(ROOT / "calls.jsonl", "a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    group, verb = arguments[2], arguments[3]
    if refused(verb):
        print(f"ERROR: {verb} refused: quota", file=sys.stderr)
        return 1
    if verb == "describe":
        return describe(group)
    if verb == "ssh":
        return on_hosts(arguments[4], arguments)
    if verb == "create":
        (ROOT / "states.json").write_text((ROOT / "created.json").read_text())
    if verb == "delete":
        (ROOT / "states.json").write_text('["NONE"]')
    if verb == "scp":
        for home in homes(arguments[5].rstrip(":"), "all"):
            (home / Path(arguments[4]).name).write_bytes(Path(arguments[4]).read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
