"""Reads how much memory there is and how much this process takes, and reads and writes sizes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch


def read_free_bytes(device: torch.device) -> int | None:
    """Reads how many bytes a device can still give, plus those that this process holds; None where that is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    facts = Path("/proc/meminfo")
    if not facts.is_file():
        return None
    (line,) = [row for row in facts.read_text().splitlines() if row.startswith("MemAvailable")]
    return min(int(line.split()[1]) * 1024, _read_group_limit()) + _read_resident()


def read_size(text: str) -> int:
    """Reads a size such as "8GB", "800 MB" or "0.5gb" in bytes (powers of 1000); raises ValueError for another text."""
    number, unit = text.strip().upper().rstrip("B"), 1.0
    for letter, factor in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if number.endswith(letter):
            number, unit = number[:-1], factor
    try:
        found = float(number) * unit
    except ValueError:
        found = 0.0
    if not 0 < found < 1e18:
        raise ValueError(f"{text!r} is no size; write it as 8GB or 800MB")
    return int(found)


def read_memory_limit(given: str | int | None) -> int | None:
    """The bytes that a run may need, given in bytes or as a size; None where nothing or "" is given.

    Raises ValueError where it is no positive number of bytes.
    """
    if given is None or given == "":
        return None
    if isinstance(given, str):
        return read_size(given)
    if isinstance(given, bool) or given <= 0:
        raise ValueError(f"max_memory has to be a positive number of bytes or a size such as 8GB, got {given!r}")
    return int(given)


def format_size(n: float) -> str:
    """Writes a number of bytes in GB or MB (powers of 1000)."""
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"


def read_resident_peak() -> int | None:
    """Reads the most bytes of main memory that this process has held; None where the system does not say.

    Linux' getrusage would include the parent's peak from before the start of this process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = [row for row in status.read_text().splitlines() if row.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _read_resident() -> int:
    """Reads how many bytes of main memory this process holds, without the pages of files, which count as available."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _read_group_limit() -> int:
    """Reads how many bytes a container leaves this process; cached files count as free, because they can be dropped."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + int(facts["inactive_file"]) + int(facts["active_file"])
    except (OSError, ValueError, KeyError):
        return 1 << 62
