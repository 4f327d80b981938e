"""A small package that brings a method, an attack, a scorer and a suite, as an installer leaves it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from judging_fixtures import write_bundle

METHOD = '''"""Fade: the keys of cross-attention become smaller. A test's, no paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from efface.edits.edit import Edit
from efface.edits.provenance import read_versions
from efface.methods.base import Method


@final
@dataclass(frozen=True, kw_only=True)
class Fade(Method):
    """Makes the keys of cross-attention smaller."""

    several: ClassVar[bool] = False
    share: float = 0.5
    """What is left of each key."""

    def train(self, model, erasure, built, progress, checkpoint) -> Edit:
        values = {name: w.detach() * self.share for name, w in model.weights.items() if "attn2.to_k" in name}
        return Edit(values, {**self.build_record(model, erasure), "versions": read_versions(), "notes": {}})
'''
ATTACK = '''"""Shout: the prompt in capitals. A test's, no paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from efface.attacks.base import Attack, Candidate


@final
@dataclass(frozen=True, kw_only=True)
class Shout(Attack):
    """Asks in capitals."""

    threat: ClassVar[str] = "prompts"
    version: ClassVar[str] = "1"
    queries: int = 1

    def propose(self, context, rows):
        yield [Candidate(row.prompt.upper(), row.seed) for row in rows]
'''
SCORER = '''"""Parity: sees the concept in every picture whose bytes add up to an even number. A test's, no paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from efface.scorers.base import Score


@final
@dataclass(frozen=True)
class Parity:
    """Sees the concept in about half of all pictures."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "even"
    unit: ClassVar[str] = ""
    better: ClassVar[str] = "higher"
    share: ClassVar[bool] = True
    name: str = "parity"
    question: str = "object"

    def identify(self):
        return {"scorer": "parity", "version": self.version}

    def score(self, images, rows, before):
        seen = ["nothing" if int(image.long().sum()) % 2 else row.concept for image, row in zip(images, rows)]
        return [Score(None, (name, "something")) for name in seen]
'''
SUITE = """
name = "four-animals"
version = "1"
licence = "Apache-2.0"
source = "a test"
about = "One of four animals is erased, the others kept."
targets = "things"

[[groups]]
name = "target"
of = "targets"
role = "erase"
asks = "object"
size = 12
title = "the erased animal"

[[groups]]
name = "unseen"
of = "unseen"
role = "keep"
asks = "object"
size = 8
title = "other animals"

[templates]
plain = ["a {}"]
styled = []
grounds = []
beside = []

[world]
things = [{ name = "cat" }, { name = "dog" }, { name = "tiger" }, { name = "lion" }]
"""
POINTS = """
[efface.methods]
fade = outsiders.fade:Fade
[efface.attacks]
shout = outsiders.shout:Shout
[efface.scorers]
parity = outsiders.parity:Parity
[efface.suites]
four-animals = outsiders
"""


def change(place: Path, name: str, text: str) -> None:
    """Writes a file of the package, which is then imported anew, as in a new process."""
    (place / name).write_text(text, encoding="utf-8")
    for module in [module for module in sys.modules if module.partition(".")[0] == "outsiders"]:
        del sys.modules[module]
    importlib.invalidate_caches()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with the package, as an installer leaves it."""
    place = tmp_path / "site"
    files = {"__init__.py": "", "fade.py": METHOD, "shout.py": ATTACK, "parity.py": SCORER, "four-animals.toml": SUITE}
    for name, text in files.items():
        (place / "outsiders").mkdir(parents=True, exist_ok=True)
        (place / "outsiders" / name).write_text(text, encoding="utf-8")
    facts = place / "outsiders-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: outsiders\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(place))
    for name in [name for name in sys.modules if name.partition(".")[0] == "outsiders"]:
        monkeypatch.delitem(sys.modules, name)
    return place


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    return str(write_bundle(tmp_path_factory.mktemp("bundle")) / "model")
