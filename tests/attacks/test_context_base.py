"""What an attacker finds as the untouched base: neither the edit's weights nor its guide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import efface
from efface.evaluation.evaluate import Settings, describe_drawing
from efface.models.adapters.sd import StableDiffusion
from efface.robustness.batch import ImageJudge, JudgePanel
from efface.robustness.run import AttackRunner


@pytest.mark.parametrize(
    ("method", "settings"),
    [("negative", {}), ("sld", {"level": "max"}), ("safree", {}), ("uce", {})],
)
def test_it_is_the_base_also_under_a_guide(
    method: str, settings: dict[str, Any], eps_model: StableDiffusion, tmp_path: Path
) -> None:
    edit = efface.erase(eps_model, "cat", method=method, **settings)
    runner = AttackRunner(
        image_judge=ImageJudge(eps_model, JudgePanel(()), tmp_path),
        edit=edit,
        drawing=describe_drawing(eps_model, Settings(), ""),
        originals=eps_model.weights,
        reference_images={},
        words=(),
        seed=0,
        on_progress=lambda stage, done, total: None,
    )

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
