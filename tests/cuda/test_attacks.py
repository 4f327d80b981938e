"""Attacks, guides, drawing and parked parts on a stand-in for a GPU: as on a CPU, and no wait in a drawing step."""

from __future__ import annotations

from typing import Any

import pytest
from on_fake_cuda import needs_compiler, run_script

pytestmark = needs_compiler


@pytest.fixture(scope="module", params=["fp32", "fp16", "bf16"])
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"dtype": request.param} | run_script("attacks", request.param)


def test_attacks_find_what_they_find_on_a_cpu(found: dict[str, Any]) -> None:
    close = {"fp32": 1e-4}.get(found["dtype"], 0.05)
    made = {name: result for name, result in found.items() if name.startswith("attack")}
    assert len(made) >= 6
    for name, result in made.items():
        assert "error" not in result, (name, result["error"])
        assert result["cuda"]["words"] == result["cpu"]["words"], name
        assert result["cuda"]["sizes"] == pytest.approx(result["cpu"]["sizes"], rel=close), name


def test_guides_draw_what_they_draw_on_a_cpu(found: dict[str, Any]) -> None:
    for name in ("plain", "negative", "sld", "safree", "spm"):
        result = found[f"draw {name}"]
        assert "error" not in result, (name, result["error"])
        # The mask of SLD has a step, where the last bits of bf16 decide.
        assert result["far"] < (3 if name == "sld" and found["dtype"] == "bf16" else 1), (name, result)
        assert name == "plain" or result["moves"] > 0


def test_no_drawing_step_waits_for_the_device(found: dict[str, Any]) -> None:
    few, many = (found["waits of drawing"][steps] for steps in ("2", "7"))
    assert few["waits"] == many["waits"], many


def test_parked_parts_serve_searches_among_token_embeddings(found: dict[str, Any]) -> None:
    if found["dtype"] != "fp32":
        return
    made = {name: result for name, result in found.items() if name.startswith("parked")}
    wanted = {"unlearndiff", "soft-prompt", "inversion", "p4d", "mma", "stereo", "compose"}
    assert made.keys() == {f"parked {name}" for name in wanted}
    for name, result in made.items():
        assert "error" not in result, (name, result["error"])
        assert result.get("far", 0) < 0.02, name
        if "far" not in result:
            assert result["cuda"]["words"] == result["cpu"]["words"], name
            assert result["cuda"]["sizes"] == pytest.approx(result["cpu"]["sizes"], rel=1e-4), name
