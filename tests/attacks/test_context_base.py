"""What an attacker finds as the untouched base: neither the edit's weights nor its guide."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import efface
from attack_context import build_rows
from efface.edits.edit import Edit
from efface.evaluation.evaluate import Settings, describe_drawing
from efface.models.adapters.sd import StableDiffusion
from efface.robustness.batch import ImageJudge, JudgePanel
from efface.robustness.conditions import AttackTarget, ConceptAliases
from efface.robustness.run import AttackRunner


def build_runner(model: StableDiffusion, folder: Path, edit: Edit | None = None) -> AttackRunner:
    return AttackRunner(
        image_judge=ImageJudge(model, JudgePanel(()), folder),
        edit=edit,
        drawing=describe_drawing(model, Settings(), ""),
        originals=model.weights,
        reference_images={},
        words=(),
        seed=0,
        on_progress=lambda stage, done, total: None,
    )


@pytest.mark.parametrize(
    ("method", "settings"),
    [("negative", {}), ("sld", {"level": "max"}), ("safree", {}), ("uce", {})],
)
def test_it_is_the_base_also_under_a_guide(
    method: str, settings: dict[str, Any], eps_model: StableDiffusion, tmp_path: Path
) -> None:
    edit = efface.erase(eps_model, "cat", method=method, **settings)
    runner = build_runner(eps_model, tmp_path, edit)

    def drawn() -> tuple[torch.Tensor, set[str]]:
        return eps_model.images(["a cat"], [1], steps=4), set(eps_model.encode(["a cat"]).tensors)

    base, conds = drawn()
    with edit.apply(eps_model):
        guided, noted = drawn()
        assert not torch.equal(guided, base)
        with runner.use_base():
            again, plain = drawn()
            assert torch.equal(again, base) and plain == conds
        after, still = drawn()
        assert torch.equal(after, guided) and still == noted
    assert torch.equal(drawn()[0], base)


def test_results_are_stored_by_what_the_rows_count_as_the_target_and_by_their_guidance(
    eps_model: StableDiffusion, tmp_path: Path
) -> None:
    runner, (row,) = build_runner(eps_model, tmp_path), build_rows("a cat")

    def list_dependencies(**changes: Any) -> str:
        asked = (dataclasses.replace(row, **changes),)
        target = AttackTarget("target", "cat", asked, (row,), "thing", ConceptAliases())
        return json.dumps(runner.list_dependencies(target, {}), sort_keys=True)

    assert list_dependencies(id="another", seed=row.seed + 1) == list_dependencies()
    assert len({list_dependencies(), list_dependencies(counts=("cat", "dog")), list_dependencies(guidance=2.0)}) == 3
