"""Run on the stand-in device: from erasing to a report by the library's functions, in one dtype; prints JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from tiny_pair import DTYPES

import efface
from efface.concept import Erasure
from efface.methods.esd import ESD
from efface.scorers.artefact import Artefact
from efface.scorers.base import pick_device
from judging_fixtures import Planted, world_pipeline
from tiny_fits import is_same

SHORT = {"steps": 3, "batch": 2, "draw_steps": 2, "paths": 2, "lr": 1e-3, "source": "frozen"}


def resume_training(model: efface.Model, folder: Path) -> bool:
    """Whether a training that stopped after its second step goes on to the same edit, bit for bit."""
    method, file = ESD(**SHORT), folder / "state.safetensors"
    whole = method.fit(model, Erasure(("cat",)))
    trainer = method.build_trainer(model, Erasure(("cat",)))
    for index, learner in enumerate(list(trainer.schedule())[:2]):
        trainer.step(trainer.make_step(index, learner))
    trainer.save_checkpoint(file, 2)
    return is_same(whole, method.fit(model, Erasure(("cat",)), checkpoint=file))


def main(dtype: str) -> None:
    torch.set_num_threads(1)
    model = efface.load(world_pipeline().to(dtype=DTYPES[dtype]), "cuda")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plans = []
        edit = efface.erase(model, "cat", method=ESD(**SHORT), progress=False, on_plan=plans.append)
        suite = folder / "suite.csv"
        suite.write_text("prompt,seed,concept,role\na cat,1,cat,target\na dog,2,dog,keep\n")
        record = efface.evaluate(
            model, edit, folder / "cat", suite, scorers=[Planted(), Artefact()], steps=2, progress=False
        )
        out = efface.export(model, edit, folder / "exported")
        again = efface.load(str(out), "cuda", dtype)
        with edit.apply(model):
            drawn = model.images(["a cat"], [1], steps=2)
        far = (again.images(["a cat"], [1], steps=2).int() - drawn.int()).abs().max().item()
        print(
            json.dumps(
                {
                    "planned": plans[0].need,
                    "scored": bool(record),
                    "exported, levels apart": far,
                    "resumed": resume_training(model, folder),
                    "judged on": str(pick_device()),
                    "peak memory": edit.meta["cost"].get("peak_memory_mb") is not None,
                }
            )
        )


main(*sys.argv[1:])
