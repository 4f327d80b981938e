"""Runs many scripts on the stand-in device, each in a process of its own that has imported everything already.

Importing torch, diffusers and the project takes longer than most scripts: it is done once, and each script is a fork.
A job is a line of JSON on stdin, {"argv": [script, …], "out": file, "err": file}; the answer is its exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import sys
import traceback

from .install import install

READ_BEFORE = ("efface", "tiny_fits", "attack_context", "judging_fixtures", "efface.scorers.artefact", "tiny_pair")
"""What the scripts import."""
LONGEST = 1800
"""Seconds that a script may take."""


def serve() -> None:
    """Answers jobs until stdin ends."""
    install()
    for name in READ_BEFORE:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        if not (child := os.fork()):
            os._exit(run(job["argv"], job["out"], job["err"]))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(argv: list[str], out: str, err: str) -> int:
    """One script, whose output goes to these files; its exit code."""
    for stream, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = argv
    signal.alarm(LONGEST)
    try:
        runpy.run_path(argv[0], run_name="__main__")
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve()
