"""Compares evaluation counts and allocations of a small training with their former values; it measures no times.

    python -m benchmarks.guard            # prints what differs from guard.json
    python -m benchmarks.guard --renew    # writes guard.json anew, if a change is intended

A change that makes a method call the network more often, or hold more tensors, is visible here before it is in times.
tests/benchmarks/test_guard.py compares in the same way, on the same tiny model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from efface import methods
from efface.concept import Erasure

from .common import count_network, list_weights, measure_peak

KEPT = Path(__file__).with_name("guard.json")
SLACK = 0.05
"""Of the bytes: libraries differ a little in what they hold."""
SMALL = {"draw_steps": 4, "steps": 2, "batch": 2, "seed": 0}
CASES: Mapping[str, Mapping[str, Any]] = {
    "esd": {"source": "frozen", "paths": 4},
    "eap": {"source": "frozen", "paths": 4, "keep_paths": 1, "centres": 4, "k_closest": 8},
    "abo": {"source": "frozen", "paths": 4},
    "p-esd": {"source": "frozen", "paths": 4, "sparsity": 0.05},
    "erasediff": {"pictures": 4, "remain_words": 2, "label": "dog"},
}


def measure_cases(opened: Callable[[], Any]) -> dict[str, dict[str, int]]:
    """Measures denoiser rows, calls and bytes of each case, each on a model of its own."""
    found = {}
    for name, more in CASES.items():
        model, again = opened(), opened()
        with count_network(model.unet) as count:
            _fit(name, model, more)
        parts = list_weights(again.unet, again.vae, again.text_encoder)
        used = measure_peak(lambda name=name, again=again, more=more: _fit(name, again, more), parts)
        found[name] = {"rows": count.rows, "calls": count.calls, "bytes": used}
    return found


def list_worse(found: Mapping[str, Mapping[str, int]], kept: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Lists what differs: counts by any amount, bytes by more than SLACK."""
    said = []
    for name in sorted({*found, *kept}):
        now, then = found.get(name, {}), kept.get(name, {})
        for what in ("rows", "calls", "bytes"):
            a, b = now.get(what, 0), then.get(what, 0)
            if abs(a - b) > (SLACK * b if what == "bytes" else 0):
                said.append(f"{name}: {a} {what}, were {b}")
    return said


def read_kept() -> dict[str, dict[str, int]]:
    """Reads the values that were written last."""
    return json.loads(KEPT.read_text(encoding="utf-8"))


def _fit(name: str, model: Any, more: Mapping[str, Any]) -> None:
    methods.build_method(name, model, {**SMALL, **more}).fit(model, Erasure(("cat",)))


def _build_tiny() -> Callable[[], Any]:
    """Builds the tests' tiny random model."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny import tiny_model

    return tiny_model


if __name__ == "__main__":
    now = measure_cases(_build_tiny())
    print("\n".join(list_worse(now, read_kept() if KEPT.exists() else {})) or "as it was")
    if sys.argv[1:] == ["--renew"]:
        KEPT.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
