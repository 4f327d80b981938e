"""Builds the native part of the stand-in device, and starts scripts on it."""

from __future__ import annotations

import atexit
import getpass
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def find_compiler() -> str | None:
    """The C++ compiler of this machine, or None."""
    return next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)


def build(compiler: str) -> Path:
    """The library built of `guard.cpp` for this version of torch; from an earlier build where there is one."""
    torch_home = Path(torch.__file__).resolve().parent  # the library is linked to the torch that lies there
    place = hashlib.sha256(str(torch_home).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"efface-fake-cuda-{getpass.getuser()}" / f"{torch.__version__}-{place}"
    made = folder / "guard.so"
    if made.is_file() and made.stat().st_mtime >= (HERE / "guard.cpp").stat().st_mtime:
        return made
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"guard.{os.getpid()}.part"
    includes = [f"-I{torch_home}/include", f"-I{torch_home}/include/torch/csrc/api/include"]
    links = [f"-L{torch_home}/lib", f"-Wl,-rpath,{torch_home}/lib", "-ltorch_cpu", "-lc10"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", abi]
    subprocess.run([compiler, *flags, *includes, str(HERE / "guard.cpp"), *links, "-o", str(part)], check=True)
    part.replace(made)
    return made


@cache
def start_server(compiler: str) -> subprocess.Popen[str]:
    """The process that runs scripts on the stand-in device, started once."""
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests" / "cuda"), str(ROOT / "src"), str(ROOT)])
    env = {**os.environ, "FAKE_GUARD": str(build(compiler)), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "fake_cuda.server"],
        env=env,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(_stop, server)
    return server


def _stop(server: subprocess.Popen[str]) -> None:
    for pipe in (server.stdin, server.stdout):
        if pipe:
            with suppress(BrokenPipeError):  # a server that failed is gone
                pipe.close()
    server.wait()


def run_on_fake_cuda(compiler: str, script: Path, *args: str) -> str:
    """What a script prints that runs on the stand-in device; AssertionError with its errors where it fails."""
    server = start_server(compiler)
    assert server.stdin and server.stdout
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name) / "out", Path(name) / "err"
        job = {"argv": [str(script), *args], "out": str(out), "err": str(err)}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        code = server.stdout.readline().strip()
        assert code == "0", err.read_text()[-6000:] if err.is_file() else f"the stand-in device did not start: {code!r}"
        return out.read_text()
