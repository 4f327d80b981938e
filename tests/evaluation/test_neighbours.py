"""The ranking of neighbours against cosines computed one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from efface.evaluation.neighbours import ranking
from efface.scorers.clip import load_clip
from judging_fixtures import THINGS, write_clip


def test_ranking_is_by_cosine_nearest_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_clip(tmp_path)
    found = ranking(str(tmp_path), THINGS)
    model, tokenizer, _ = load_clip(str(tmp_path))
    vectors = {}
    for name in THINGS:
        with torch.inference_mode():
            vectors[name] = model.get_text_features(**tokenizer(f"a picture of a {name}", return_tensors="pt"))
    vectors = {name: np.asarray(v.pooler_output[0].double()) for name, v in vectors.items()}
    for name, others in found.items():
        cosines = {
            o: v @ vectors[name] / np.linalg.norm(v) / np.linalg.norm(vectors[name])
            for o, v in vectors.items()
            if o != name
        }
        assert set(others) == set(cosines)
        in_order = [cosines[o] for o in others]
        assert np.all(np.diff(in_order) <= 1e-6)
    with pytest.raises(ValueError, match="once"):
        ranking(str(tmp_path), THINGS, "a picture")
