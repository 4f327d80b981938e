"""A grid of three small edits, for tests of sweeps."""

from __future__ import annotations

from pathlib import Path

TEXT = """
model = "glyphs-ddpm"
methods = ["negative"]
concepts = ["cat", "dog", "rose"]
strengths = [1.0]
[sizes]
target = 1
[drawing]
steps = 2
"""


def write(folder: Path, text: str = TEXT) -> Path:
    file = folder / "grid.toml"
    file.write_text(text)
    return file
