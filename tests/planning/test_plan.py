"""What a run will take, said before; against what it took."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import efface
from efface import methods
from efface.cli.app import main
from efface.concept import Erasure
from efface.models.trajectory_cache import TrajectoryCache
from efface.planning.machine import free_bytes, read_size, size
from efface.planning.plan import SPARE, DoesNotFit, Plan, demand, lighter, planned
from efface.planning.probe_steps import Line
from efface.planning.tracker import Tally, size_of
from tiny import tiny_model, tiny_pipeline

TOLERANCE = 0.1
"""Of the peak: what the plan may be wrong by."""
SHORT = {"steps": 2, "draw_steps": 3, "paths": 4, "lr": 1e-3, "pictures": 4, "remain_words": 2, "label": "dog"}
CASES = {
    "esd, one row": {"batch": 1, "source": "frozen"},
    "eap, one of each": {"batch": 1, "source": "frozen", "keep_paths": 1},
    "esd, much recorded": {"batch": 2, "source": "frozen", "paths": 32, "draw_steps": 9},
    "esd": {"batch": 8, "source": "frozen"},
    "eap": {"batch": 6, "source": "frozen", "keep_paths": 1},
    "esd, in pieces": {"batch": 8, "source": "frozen", "micro_batch": 2, "weights": "noxattn"},
    "abo": {"batch": 4, "source": "student"},
    "esd, recorded anew": {"batch": 2, "source": "student", "refresh": 2, "paths": 32, "draw_steps": 9},
    "erasediff": {"batch": 6},
    "p-esd": {"batch": 6, "source": "frozen", "sparsity": 0.05},
}


def settings(name: str, **more: object) -> dict[str, object]:
    fields = methods.get(name).__dataclass_fields__
    return {key: value for key, value in {**SHORT, **more}.items() if key in fields}


def weights(model) -> list[torch.Tensor]:
    return [p for part in (model.unet, model.vae, model.text_encoder) for p in (*part.parameters(), *part.buffers())]


@pytest.mark.parametrize("bound", [0, 2 << 30], ids=["on disk", "in memory"])
@pytest.mark.parametrize("case", CASES)
def test_the_plan_is_what_the_run_takes(case, bound, eps_model):
    name = case.partition(",")[0]
    method = methods.get(name)(**settings(name, **CASES[case]))
    model = tiny_model()
    eps_model.recordings, model.recordings = TrajectoryCache(bound=bound), TrajectoryCache(bound=bound)
    plan = planned(method.game(eps_model, Erasure(("cat",))))
    with Tally(weights(model)) as tally:
        method.fit(model, Erasure(("cat",)))
    took = size_of(weights(model)) + tally.peak
    assert plan.need == pytest.approx(took, rel=TOLERANCE)


def test_planning_changes_nothing_and_draws_nothing(eps_model):
    method = methods.get("eap")(**settings("eap", source="frozen", keep_paths=1))
    without = method.fit(tiny_model(), Erasure(("cat",)))
    game = method.game(eps_model, Erasure(("cat",)))
    sources = [term.source for term in game.terms]
    plan = planned(game)
    assert [term.source for term in game.terms] == sources
    assert not eps_model.recordings.held
    edit = game.play()
    assert all(torch.equal(value, without.values[name]) for name, value in edit.values.items())
    assert edit.meta == without.meta
    assert plan.recorded == sum(
        t.nbytes for d in eps_model.recordings.held.values() for t in (d.states, d.eps_c, d.eps_0)
    )


def test_a_run_that_does_not_fit_is_refused_with_the_plan_and_what_would_fit(eps_model):
    method = methods.get("esd")(**settings("esd", batch=64, source="frozen"))
    game = method.game(eps_model, Erasure(("cat",)))
    plan = planned(game)
    others = lighter(game, plan)
    assert list(others) == ["--micro-batch 1", "--micro-batch 1 --checkpointing"]
    assert not eps_model.unet.is_gradient_checkpointing
    assert others["--micro-batch 1"].need < plan.need
    enough = round(others["--micro-batch 1"].need * SPARE) + 1
    with pytest.raises(
        DoesNotFit, match=r"needs .* there are(.|\n)*a turn, 64 of 64 rows(.|\n)*fit with --micro-batch 1 \("
    ):
        demand(plan, enough, lambda: others)
    with pytest.raises(DoesNotFit, match="the least by flags is"):
        demand(plan, 1000, lambda: others)
    demand(plan, round(plan.need * SPARE) + 1, lambda: pytest.fail("asked for others"))
    demand(plan, None, lambda: pytest.fail("asked for others"))


def test_what_would_fit_does(eps_model):
    """The plan for smaller pieces holds when a run is really made in them."""
    method = methods.get("esd")(**settings("esd", batch=16, source="frozen"))
    game = method.game(eps_model, Erasure(("cat",)))
    promised = replace(planned(game), micro=1)
    model = tiny_model()
    with Tally(weights(model)) as tally:
        replace(method, micro_batch=1).fit(model, Erasure(("cat",)))
    assert promised.need == pytest.approx(size_of(weights(model)) + tally.peak, rel=TOLERANCE)


def test_where_drawing_takes_most_fewer_pictures_at_once_are_offered(eps_model):
    """And what is promised for one at a time is what that takes; where a turn takes more it is no help, and unnamed."""
    method = methods.get("esd")(**settings("esd", batch=1, source="frozen", paths=32, draw_steps=9))
    game = method.game(eps_model, Erasure(("cat",)))
    plan = planned(game)
    others = lighter(game, plan)
    assert eps_model.draw_batch == 0
    promised = others["--checkpointing --draw-batch 1"]
    assert promised.need < others["--checkpointing"].need
    model = tiny_model()
    model.draw_batch = 1
    model.unet.enable_gradient_checkpointing()
    with Tally(weights(model)) as tally:
        method.fit(model, Erasure(("cat",)))
    assert promised.need == pytest.approx(size_of(weights(model)) + tally.peak, rel=TOLERANCE)
    busy = methods.get("esd")(**settings("esd", batch=64, source="frozen", micro_batch=64))
    game = busy.game(eps_model, Erasure(("cat",)))
    assert planned(game).learning > planned(game).sampling


def test_a_model_is_told_how_many_are_drawn_at_once():
    assert efface.load(tiny_pipeline(), draw_batch=3).drawn_together == 3
    assert efface.load(tiny_pipeline()).drawn_together == 32
    with pytest.raises(ValueError, match="draw_batch is 0 or a number of pictures, got -1"):
        efface.load(tiny_pipeline(), draw_batch=-1)


@pytest.mark.parametrize(("batch", "micro"), [(1, 0), (6, 1), (6, 2), (6, 0)])
def test_planning_makes_no_pass_of_more_rows_than_the_run(batch, micro, eps_model):
    """EAP's student reads two rows for one of each term; passes without a gradient are no matter."""
    method = methods.get("eap")(**settings("eap", batch=batch, micro_batch=micro, source="frozen", keep_paths=1))
    game = method.game(eps_model, Erasure(("cat",)))
    seen: list[int] = []
    hook = eps_model.unet.register_forward_pre_hook(
        lambda _, args: seen.append(len(args[0])) if torch.is_grad_enabled() else None
    )
    planned(game)
    hook.remove()
    assert max(seen) <= min(4, micro or 2 * batch)


def test_what_does_not_fit_even_by_pieces_is_refused_with_what_is_known(eps_model, monkeypatch):
    method = methods.get("esd")(**settings("esd", batch=8, source="frozen"))
    game, network = method.game(eps_model, Erasure(("cat",))), eps_model._network
    for most, said in (
        (1, r"not even two rows at once fit on cpu; with --micro-batch 1 it would need .*\n(.|\n)*what learns"),
        (0, r"not even one row at once fits on cpu beside .* of weights and .* of what learns; --checkpointing"),
    ):

        def small(x_t, t, cond, most=most):
            if torch.is_grad_enabled() and len(x_t) > most:
                raise torch.OutOfMemoryError
            return network(x_t, t, cond)

        monkeypatch.setattr(eps_model, "_network", small)
        with pytest.raises(DoesNotFit, match=said):
            planned(game)


def test_encoders_rest_unless_they_learn(eps_model):
    still = planned(methods.get("esd")(**settings("esd")).game(eps_model, Erasure(("cat",))))
    encoders = (*eps_model.vae.parameters(), *eps_model.text_encoder.parameters(), *eps_model.text_encoder.buffers())
    assert still.resting == size_of(encoders)
    live = methods.get("advunlearn")(**settings("advunlearn", warm_up=5, retain_template="a {}"))
    assert planned(live.game(eps_model, Erasure(("cat",)))).resting == 0


def test_lines_and_sizes():
    line = Line.through(30, 50, rows=2)
    assert (line(0), line(2), line(4), line(10)) == (10, 30, 50, 110)
    assert [read_size(text) for text in ("8GB", "800 MB", "0.5gb", "1000")] == [8 * 10**9, 8 * 10**8, 5 * 10**8, 1000]
    for wrong in ("", "lots", "-3GB", "GB"):
        with pytest.raises(ValueError, match="write it as 8GB"):
            read_size(wrong)
    assert (size(2.5e9), size(3.21e6)) == ("2.50 GB", "3.2 MB")
    assert (free_bytes(torch.device("cpu")) or 1) > 0


def test_the_table_leaves_out_what_is_nothing():
    plan = Plan(
        100, 0, 50, 0, Line(10, 5), Line(0, 0), rows=4, micro=2, waiting=1.5, apart=7, pictures=0, traced=0, recorded=0
    )
    assert plan.need == 180
    assert "drawing" not in plan.table()
    assert "a turn, 2 of 4 rows at once" in plan.table()


def test_tally_counts_storages_once_and_forgets_the_freed():
    known = torch.zeros(1000)
    with Tally([known]) as tally:
        a = torch.zeros(250)
        views = [a[:10], a.view(5, 50), known[3:], known.view(10, 100)]
        assert tally.live == 1000
        b = a + 1
        assert (tally.live, tally.peak) == (2000, 2000)
        del a, views
        assert tally.live == 1000
        del b
    assert (tally.live, tally.peak) == (0, 2000)
    assert size_of([known, known[5:]]) == 4000


def test_erase_refuses_from_the_command_line(tmp_path, capsys):
    tiny_model().save_pretrained(tmp_path / "model")
    args = ["erase", "esd", "--model", str(tmp_path / "model"), "--target", "cat", "--batch", "64", "--draw-steps", "3"]
    args += ["--out", str(tmp_path / "e.safetensors"), "--steps", "2", "--source", "frozen"]
    assert main([*args, "--max-memory", "6MB"]) == 2
    said = capsys.readouterr().err
    assert "this run takes, at most" in said
    assert "weights of the model" in said
    assert "there are 6.0 MB" in said
    assert "it would fit with --micro-batch 1" in said
    assert not (tmp_path / "e.safetensors").exists()
    assert main([*args, "--max-memory", "some"]) == 2
    assert "write it as 8GB" in capsys.readouterr().err
