"""Each side of a benchmark in a process of its own, told what to do line by line, so that they can be timed in turn."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


class Peer:
    """A child process that runs a module of this folder and answers JSON with JSON.

    Parameters
    ----------
    module
        File name in this folder, without its ending; it calls ``serve``.
    arguments
        Of the module.
    python
        Interpreter that has what the module imports.
    environment
        Added to this process's; a value of None takes a variable away.
    """

    def __init__(
        self, module: str, *arguments: str, python: str = sys.executable, environment: Mapping[str, str | None] = {}
    ):
        merged = {**os.environ, **environment}
        self.module = module
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.{module}", *arguments],
            cwd=ROOT,
            env={k: v for k, v in merged.items() if v is not None},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, do: str, **arguments: Any) -> Any:
        """Have the child do something and wait for what it gives back."""
        pipes = self._process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=pipes.stdin, flush=True)
            reply = pipes.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            raise RuntimeError(f"{self.module} ended with code {pipes.wait()}; its last words are above")
        return json.loads(reply)

    def close(self) -> None:
        """End the child."""
        self._process.communicate()


def serve(**commands: Callable[..., Any]) -> None:
    """Answer the parent until it hangs up. What anything else prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(commands[request.pop("do")](**request)), file=replies, flush=True)
