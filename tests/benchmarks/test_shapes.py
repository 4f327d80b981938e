"""What the benchmarks of drawing and of Stable Diffusion's size set up, and what they count."""

from __future__ import annotations

import pytest
import torch

import efface
from benchmarks.common import count_network, list_concepts
from benchmarks.drawing import Drawing
from benchmarks.growth import Growth
from benchmarks.sd_size import CAT, CONCEPTS, SDSize, _count_drawn_rows
from efface import methods
from tiny import tiny_pipeline


def test_as_many_concepts_as_are_named():
    assert len(set(list_concepts(CONCEPTS))) == CONCEPTS == 100
    assert len(Growth().build_erasure("concepts", 100).targets) == 100
    with pytest.raises(ValueError, match=r"there are names of .* concepts, not of 9999"):
        list_concepts(9999)


def test_the_bare_pipeline_is_never_compiled(monkeypatch):
    networks, compiled = [], []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compiled.append(network))
    monkeypatch.setattr(Drawing, "compare", lambda _, model, bare, n: networks.extend([model.unet, bare.unet]) or {})
    monkeypatch.setattr("benchmarks.drawing.write", lambda *_: None)
    Drawing(compile=True, batches=(1,)).run()
    assert [network is networks[0] for network in compiled] == [True]
    assert networks[1] is not networks[0]


@pytest.mark.parametrize("name", ["esd", "eap", "erasediff"])
def test_rows_drawn_before_learning_are_counted(name):
    """By the rows that pass: a run's less those of one on what is drawn already, where it is kept."""
    model = efface.load(tiny_pipeline())
    model.own_words = ("dog", "car", "rose", "lion", "truck")
    more = {"draw_steps": 3, "paths": 2, "keep_paths": 1, "centres": 3, "k_closest": 9, "pictures": 4, "margin": 0.0}
    more |= {"steps": 1, "batch": 2, "source": "frozen", "remain_words": 3, "label": "tiger"}
    fields = methods.get(name).__dataclass_fields__
    method = methods.get(name)(**{key: value for key, value in more.items() if key in fields})
    with count_network(model.unet) as count, torch.random.fork_rng():
        method.fit(model, CAT)
    drawn = _count_drawn_rows(method, model)
    assert drawn % (2 * 3) == 0
    assert drawn <= count.rows <= drawn + 6 * 2


def test_the_time_of_an_update_is_that_of_a_run_that_nothing_counts(monkeypatch):
    made = SDSize(updates=2, warm=0, paths=1, draw_steps=2, methods=("esd",), dtype="fp32", bare=False)
    counting: list[bool] = []

    def peak_of(work, _):
        counting.append(True)
        work()
        return 1

    monkeypatch.setattr(SDSize, "open_model", lambda *_: efface.load(tiny_pipeline()))
    monkeypatch.setattr("benchmarks.sd_size.measure_peak", peak_of)
    monkeypatch.setattr("benchmarks.sd_size.settle", lambda: counting and pytest.fail("timed while it was counted"))
    row = made.measure_case("esd", torch.device("cpu"), 1e9)
    assert row["seconds an update"] > 0 and row["TFLOP/s"] > 0
    assert counting == [True]
