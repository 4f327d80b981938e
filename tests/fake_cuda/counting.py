"""What the stand-in device counts: live bytes, copies to the host, and what makes the host wait."""

from __future__ import annotations

import collections
import os
import sys

import torch

PROJECT = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "src", "efface")
SYNCS: collections.Counter = collections.Counter()
"""What made the host wait, by kind and line of the project."""
UPCAST: collections.Counter = collections.Counter()
"""Operations in half precision that a CPU lacks, computed in fp32."""
COUNT = {"on": False}
MEM = {"now": 0, "peak": 0}
"""Live bytes on the device."""
COPIED = {"bytes": 0, "largest": 0}
"""Bytes that went from the device to the host, in all and in one copy, where waits are counted."""
_live: dict[int, list] = {}


def track(r, elem):
    """Bytes of storages that some fake tensor holds."""
    try:
        st = elem.untyped_storage()
        key, size = st.data_ptr(), st.nbytes()
    except Exception:
        return
    if not key:
        return
    if key in _live:
        _live[key][0] += 1
    else:
        _live[key] = [1, size]
        MEM["now"] += size
        MEM["peak"] = max(MEM["peak"], MEM["now"])
    r._held = _Held(key)


class _Held:
    __slots__ = ("key",)

    def __init__(self, key):
        self.key = key

    def __del__(self):
        _untrack(self.key)


def _untrack(key):
    e = _live.get(key)
    if e:
        e[0] -= 1
        if not e[0]:
            MEM["now"] -= e[1]
            del _live[key]


def site():
    f = sys._getframe(2)
    while f:
        if f.f_code.co_filename.startswith(PROJECT):
            return f"{f.f_code.co_filename[len(PROJECT) + 1 :]}:{f.f_lineno}"
        f = f.f_back
    return "?"


def note(kind):
    """Counts one wait, where waits are counted."""
    if COUNT["on"]:
        SYNCS[kind, site()] += 1


def note_copied(elem: torch.Tensor) -> None:
    """Counts the bytes of one copy to the host, where waits are counted."""
    if COUNT["on"]:
        size = elem.numel() * elem.element_size()
        COPIED.update(bytes=COPIED["bytes"] + size, largest=max(COPIED["largest"], size))


def waits() -> int:
    """How often the host has waited."""
    return sum(n for (kind, _), n in SYNCS.items() if kind != "empty_cache")
