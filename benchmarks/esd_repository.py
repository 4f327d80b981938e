"""ESD by its authors' own program and by ours, on the same model: `python -m benchmarks.esd_repository CHECKOUT`.

CHECKOUT is a folder with the authors' repository (github.com/rohitgandikota/erasing), of which nothing is part of this
package. Both programs are started as processes of their own, one after the other, with as many updates of one row, 50
steps of drawing, the same learning rate, weights and number of threads. Seconds are those of the processor, which
other work on the machine stretches little, and of the whole program: imports, opening the model and writing the
weights are among them. Ours runs with the embedded model's own number of trajectories and with as few as have a state
for each row, and with one row and with eight rows in an update: the same number of rows in fewer updates, with a
learning rate that grows as the square root of the rows in an update.

Their program names its model, and draws at 1,024 pixels: it is run from a folder in which that name leads to the
embedded model, and with the model's own size in that one line. It trains in bfloat16, as it comes. With `--pictures N`
both edits are drawn and judged by the embedded model's suite and judges, N pictures a group.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from safetensors.torch import load_file

import efface
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.edits.provenance import describe_run
from efface.suites.world import locate

from .common import describe_machine, format_table, write

PROGRAM = "esd_sd.py"
NAMED = "CompVis/stable-diffusion-v1-4"
"""The model that their program opens."""
SIZE = re.compile(r"height\s*=\s*width\s*=\s*1024")
DRAW_STEPS = 50
METRICS = ("esr1/target", "psr1/neighbour", "psr1/unseen")


def name_ours(paths: int, batch: int) -> str:
    """The name of our run with so many trajectories, and so many rows in an update."""
    return f"ours-{paths or 'fewest'}-paths-{batch}-rows"


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Compares the authors' ESD with ours."""

    checkout: Annotated[Path, tyro.conf.Positional]
    """A folder with the authors' repository."""
    updates: int = 200
    """Of the weights by their program, one row each; ours has as many rows."""
    concept: str = "cat"
    threads: int = 1
    lr: float = 5e-5
    """Their default."""
    paths: tuple[int, ...] = (32, 0)
    """Trajectories that ours draws and records, a run for each; 0 is as many as have a state for each row."""
    batches: tuple[int, ...] = (1, 8)
    """Rows in an update of ours, a run for each."""
    pictures: int = 0
    """In each group, by which both edits are judged; none where 0."""
    out: Path = Path("out/esd-repository")

    def run(self) -> dict[str, Any]:
        """Runs both programs, writes their processor seconds, and prints a table."""
        program = self.checkout / PROGRAM
        if not program.is_file():
            raise FileNotFoundError(f"{self.checkout} holds no {PROGRAM}; give a checkout of the authors' repository")
        if not SIZE.search(program.read_text()):
            raise ValueError(f"{program} does not say height=width=1024, so it is another version than this is for")
        self.out.mkdir(parents=True, exist_ok=True)
        theirs = self.start_theirs(self.updates)
        found: dict[str, Any] = {"updates": self.updates, "concept": self.concept, "theirs": theirs}
        rows = []
        for paths, batch in self.list_runs():
            drawn = paths or -(-self.updates // DRAW_STEPS)
            ours = found[name_ours(paths, batch)] = self.start_ours(drawn, batch, self.name_file(paths, batch))
            rows.append([self.updates, drawn, batch, theirs, ours, theirs / ours])
        heads = ["rows", "paths", "rows an update", "the authors' program, processor seconds", "efface", "times less"]
        print(format_table(heads, rows))
        if self.pictures:
            found |= self.judge()
        write(self.out, "result", {**found, **describe_machine(threads=self.threads)})
        return found

    def start_theirs(self, updates: int) -> float:
        """Runs their program and returns its processor seconds; its weights lie in `out`/theirs.safetensors
        afterwards."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            size = efface.load("glyphs").resolution
            source = (self.checkout / PROGRAM).read_text()
            (folder / PROGRAM).write_text(SIZE.sub(f"height=width={size}", source))
            (folder / "utils").symlink_to((self.checkout / "utils").resolve())
            (folder / NAMED).parent.mkdir()
            (folder / NAMED).symlink_to((locate("glyphs") / "model").resolve())
            flags = {"erase_concept": self.concept, "train_method": "esd-x", "iterations": updates, "lr": self.lr}
            flags |= {"save_path": "made", "device": "cpu"}
            command = [sys.executable, PROGRAM, *(part for key, v in flags.items() for part in (f"--{key}", str(v)))]
            seconds = self.measure_seconds(command, folder)
            (made,) = (folder / "made").glob("*.safetensors")
            shutil.copy(made, self.out / "theirs.safetensors")
        return seconds

    def list_runs(self) -> list[tuple[int, int]]:
        """Our runs, by their trajectories and the rows in an update."""
        return [(paths, batch) for paths in self.paths for batch in self.batches]

    def name_file(self, paths: int, batch: int) -> Path:
        """Names the file of our edit."""
        return self.out / f"{name_ours(paths, batch)}.safetensors"

    def start_ours(self, paths: int, batch: int, file: Path) -> float:
        """Runs our program and returns its processor seconds; its edit lies in the file afterwards."""
        flags = {"model": "glyphs", "target": self.concept, "weights": "xattn", "source": "frozen"}
        flags |= {
            "steps": -(-self.updates // batch),
            "batch": batch,
            "draw-steps": DRAW_STEPS,
            "paths": paths,
            "guidance": 3,
            "eta": 1,
            "lr": self.lr * batch**0.5,
            "space": "eps",
            "templates": "{}",
        }
        file.unlink(missing_ok=True)
        given = [part for key, value in flags.items() for part in (f"--{key}", str(value))]
        return self.measure_seconds(
            [sys.executable, "-m", "efface", "erase", "esd", *given, "--out", str(file.resolve())], None
        )

    def measure_seconds(self, command: list[str], folder: Path | None) -> float:
        """Run a program to its end; its processor seconds, or a RuntimeError with the end of what it printed."""
        threads = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        with tempfile.TemporaryFile("w+") as log:
            env = {**os.environ, **threads, "HF_HUB_OFFLINE": "1"}
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                log.seek(0)
                raise RuntimeError(f"{' '.join(command[:3])} ended with {process.returncode}: {log.read()[-2000:]}")
        return used.ru_utime + used.ru_stime

    def judge(self) -> dict[str, Any]:
        """Rates of all edits by the same suite and judges, as {whose: {metric: (rate, the untouched base's)}}."""
        model: Any = efface.load("glyphs")
        values = load_file(self.out / "theirs.safetensors")
        request = Erasure((self.concept,))
        theirs = {f"unet.{name}": value.to(model.weights[f"unet.{name}"].dtype) for name, value in values.items()}
        edits = {"theirs": Edit(theirs, describe_run(model, request, "the authors' program", {}))}
        edits |= {name_ours(*run): Edit.load(self.name_file(*run)) for run in self.list_runs()}
        sizes = dict.fromkeys(("target", "neighbour", "unseen"), self.pictures)
        found = {}
        for who, edit in edits.items():
            where = self.out / who
            record = efface.evaluate(model, edit, where, sizes=sizes, images=self.out / "images", progress=False)
            measures = {metric: record.find(*metric.split("/")) for metric in METRICS}
            found[who] = {metric: (m.edited.value, m.base.value) for metric, m in measures.items() if m}
            print(who, found[who])
        return {"rates": found}


if __name__ == "__main__":
    tyro.cli(Repository).run()
