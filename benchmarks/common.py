"""What all benchmarks share: counting and timing, the description of the machine, and the files of results."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from efface.files import check_file
from efface.planning.tracker import AllocationTracker, count_bytes
from efface.suites import world

PACKAGES = ("efface", "torch", "diffusers", "transformers", "accelerate", "numpy")


@dataclass
class Count:
    """The number of rows and calls of a denoiser."""

    rows: int = 0
    """A row is one state under one condition; a guided step of one picture is two."""
    calls: int = 0


@dataclass(frozen=True)
class Cost:
    """The seconds, rows, calls and bytes of a piece of work."""

    seconds: float
    processor: float
    """Seconds of processor time, which other work on the machine does not stretch; on a GPU it tells little."""
    rows: int
    """Rows that the denoiser evaluated, recomputed ones among them."""
    calls: int


@contextmanager
def count_network(*denoisers: nn.Module) -> Iterator[Count]:
    """Counts rows and calls of these modules inside the block, by a hook on their forward pass."""
    count = Count()

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        sample = args[0] if args else kwargs["sample"]
        count.rows += len(sample)
        count.calls += 1

    handles = [denoiser.register_forward_pre_hook(note, with_kwargs=True) for denoiser in denoisers]
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()


def measure_work(work: Callable[[], object], *denoisers: nn.Module) -> Cost:
    """Measures seconds, rows and calls of one piece of work, and waits for a GPU to finish."""
    with count_network(*denoisers) as count:
        settle()
        start, busy = time.perf_counter(), time.process_time()
        work()
        settle()
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    return Cost(seconds, busy, count.rows, count.calls)


def measure_peak(work: Callable[[], object], resting: Sequence[Tensor]) -> int:
    """The most bytes of tensors that are alive at once during the work, including `resting` (weights that exist
    already).

    On a GPU what its allocator had handed out; elsewhere counted by operation, which slows the work: time another run.
    """
    if torch.cuda.is_available() and any(tensor.is_cuda for tensor in resting):
        settle()
        torch.cuda.reset_peak_memory_stats()
        work()
        settle()
        return torch.cuda.max_memory_allocated()
    with AllocationTracker(resting) as tally:
        work()
    return count_bytes(resting) + tally.peak


def list_concepts(n: int) -> tuple[str, ...]:
    """The first n names of what the embedded model's world knows, followed by their synonyms; ValueError if n is
    larger."""
    things = world.load(world.BUNDLED).things
    names = tuple(dict.fromkeys([*(t.name for t in things), *(word for t in things for word in t.synonyms)]))
    if n > len(names):
        raise ValueError(f"there are names of {len(names)} concepts, not of {n}")
    return names[:n]


def settle() -> None:
    """Waits until a GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def list_weights(*modules: nn.Module) -> list[Tensor]:
    """The parameters and buffers of a module."""
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


def time_repeatedly(work: Callable[[], object], times: int, warm: int = 1) -> float:
    """The median seconds of `times` runs, after `warm` runs that do not count."""
    return median(time_alternately({"": work}, times, warm)[""])


def time_alternately(works: Mapping[str, Callable[[], object]], times: int, warm: int = 1) -> dict[str, list[float]]:
    """The seconds of each run of each piece of work, after `warm` runs that do not count; the pieces take turns, so
    that the load of the machine affects all alike."""
    for work in [*works.values()] * warm:
        work()
    goes = [{name: measure_work(work).seconds for name, work in works.items()} for _ in range(times)]
    return {name: [go[name] for go in goes] for name in works}


def measure_matmul_peak(device: torch.device, dtype: torch.dtype, side: int = 0) -> float:
    """The FLOP/s of the best of ten products of two square matrices: the most that this machine reaches now."""
    side = side or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = min(measure_work(lambda: a @ b).seconds for _ in range(12))
    return 2 * side**3 / best


def describe_machine(**more: Any) -> dict[str, Any]:
    """The machine, versions and settings, which belong to every result."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _find_processor()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    facts = {
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": load,
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
    }
    return facts | {name: version(name) for name in PACKAGES} | more


def write(out: Path, name: str, data: Mapping[str, Any]) -> None:
    """Writes the result as JSON, completely or not at all."""
    file = check_file(out / f"{name}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)
    print(f"written: {file}")


def format_table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Formats rows as a Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(_format_cell(cell) for cell in line) + " |" for line in lines)


def describe_flags(program: Any) -> dict[str, Any]:
    """Writes the flags of a benchmark, a dataclass, in JSON's types."""
    return json.loads(json.dumps(asdict(program), default=str))


def describe_cost(cost: Cost) -> dict[str, Any]:
    """Writes a cost in JSON's types."""
    return asdict(cost)


def _format_cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _find_processor() -> str:
    file = Path("/proc/cpuinfo")
    names = [line for line in file.read_text().splitlines() if line.startswith("model name")] if file.is_file() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
