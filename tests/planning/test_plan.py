"""What a run will take, said before; against what it took."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensor

import efface.planning.estimating
from efface import methods
from efface.cli.app import main
from efface.concept import Erasure
from efface.models.adapters.sd import StableDiffusion
from efface.models.trajectory import Defaults
from efface.models.trajectory_cache import TrajectoryCache
from efface.planning.estimating import estimate, suggest_lighter
from efface.planning.plan import SPARE, DoesNotFit, require_fit
from efface.planning.probe_steps import LinearFit
from efface.planning.shapes import ask_terms, is_trial_cheap
from efface.planning.tracker import AllocationTracker, count_bytes
from tiny import WORDS, tiny_pipeline

TOLERANCE = 0.1
"""Of the peak: what the plan may be wrong by."""
CHANNELS = 64
"""Of a wide network, whose gradients are larger than the activations of a few rows."""
SHORT = {"steps": 2, "draw_steps": 3, "paths": 4, "lr": 1e-3, "pictures": 4, "remain_words": 2, "label": "dog"}
CASES = {
    "esd, one row": {"batch": 1, "source": "frozen"},
    "eap, one of each": {"batch": 1, "source": "frozen", "keep_paths": 1},
    "esd, much recorded": {"batch": 2, "source": "frozen", "paths": 32, "draw_steps": 9},
    "esd": {"batch": 8, "source": "frozen"},
    "eap": {"batch": 4, "source": "frozen", "keep_paths": 1},
    "esd, in pieces": {"batch": 8, "source": "frozen", "micro_batch": 2, "weights": "noxattn"},
    "abo": {"batch": 4, "source": "student"},
    "esd, recorded anew": {"batch": 2, "source": "student", "refresh": 2, "paths": 32, "draw_steps": 9},
    "erasediff": {"batch": 4},
    "p-esd": {"batch": 6, "source": "frozen", "sparsity": 0.05},
}


def build_half(channels: int = 8) -> StableDiffusion:
    """The tiny Stable Diffusion with half of its network: a plan and a run are both made in every test."""
    pipeline = tiny_pipeline()
    torch.manual_seed(0)
    pipeline.unet = UNet2DConditionModel(
        sample_size=8,
        **dict.fromkeys(("in_channels", "out_channels"), 4),
        block_out_channels=(channels,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None,
        cross_attention_dim=16,
        attention_head_dim=2,
    )
    return StableDiffusion(pipeline, "tiny", defaults=Defaults(steps=4, guidance=3.0), words=WORDS)


@pytest.fixture
def eps_model() -> StableDiffusion:
    return build_half()


def shorten(name: str, **more: object) -> dict[str, object]:
    fields = methods.get(name).__dataclass_fields__
    return {key: value for key, value in {**SHORT, **more}.items() if key in fields}


def list_weights(model) -> list[torch.Tensor]:
    return [p for part in (model.unet, model.vae, model.text_encoder) for p in (*part.parameters(), *part.buffers())]


def build_long(method, model):
    """A training of so many steps that trial steps are worth making; a plan does not depend on their number."""
    return replace(method, steps=1000).build_trainer(model, Erasure(("cat",)))


def build_method(case: str):
    name = case.partition(",")[0]
    return methods.get(name)(**shorten(name, **CASES[case]))


def measure_peak(method, model) -> int:
    """Bytes of tensors at the peak of a fit, with the model's weights."""
    with AllocationTracker(list_weights(model)) as tracker:
        method.fit(model, Erasure(("cat",)))
    return count_bytes(list_weights(model)) + tracker.peak


def count_network_rows(model) -> list[int]:
    """A list that grows by the rows of each pass that computes numbers; a row that is learnt from counts 3."""
    seen: list[int] = []

    def note(_, args) -> None:
        again = torch._C._current_graph_task_id() != -1  # recomputed on the way back
        if not isinstance(args[0], FakeTensor):
            seen.append(len(args[0]) * (3 if torch.is_grad_enabled() and not again else 1))

    model.unet.register_forward_pre_hook(note)
    return seen


BOUNDS = {"on disk": 0, "in memory": 2 << 30}
STORED = ("esd", "eap", "esd, recorded anew")
"""Cases that are run with their recordings held in memory, too."""
RUNS = [(case, where) for case in CASES for where in BOUNDS if where == "on disk" or case in STORED]


@pytest.mark.parametrize(("case", "where"), RUNS)
def test_the_plan_is_what_the_run_takes(case, where, eps_model):
    method, model = build_method(case), build_half()
    eps_model.recordings, model.recordings = (TrajectoryCache(bound=BOUNDS[where]) for _ in range(2))
    plan = estimate(build_long(method, eps_model))
    assert not plan.from_shapes
    assert plan.need == pytest.approx(measure_peak(method, model), rel=TOLERANCE)


def test_the_plan_from_shapes_is_what_a_short_run_takes(eps_model):
    """And it computes nothing: the network makes no pass."""
    method, seen, told = build_method("esd, in pieces"), count_network_rows(eps_model), []
    plan = estimate(method.build_trainer(eps_model, Erasure(("cat",))), lambda *done: told.append(done))
    assert not seen
    assert plan.from_shapes
    assert "from the shapes of tensors" in plan.format_table()
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert plan.need == pytest.approx(measure_peak(method, build_half()), rel=TOLERANCE)


@pytest.mark.parametrize("from_shapes", [True, False])
def test_the_plan_knows_where_activations_outgrow_two_sets_of_gradients(from_shapes):
    """Of a wide network the gradients take most with one and two rows, from which the plan is made, and not with 16."""
    method = methods.get("erasediff")(**shorten("erasediff", batch=16))
    built = method.build_trainer if from_shapes else partial(build_long, method)
    plan = estimate(built(build_half(CHANNELS), *[Erasure(("cat",))] * from_shapes))
    assert plan.from_shapes == from_shapes
    peak = plan.step_peak
    assert LinearFit.through(peak(2), peak(4), 2)(32) < 0.9 * peak(32), "a line would have been enough"
    assert plan.need == pytest.approx(measure_peak(method, build_half(CHANNELS)), rel=TOLERANCE)


def test_trial_steps_cost_at_most_a_tenth_of_the_run(eps_model):
    """Also where they are only just made: with a step less in the run, shapes have to do."""
    method, erasure = build_method("esd, one row"), Erasure(("cat",))
    trainer = method.build_trainer(eps_model, erasure)

    def is_cheap(steps: int) -> bool:
        trainer.config = replace(trainer.config, steps=steps)
        return is_trial_cheap(trainer)

    least = next(steps for steps in range(1, 1000) if is_cheap(steps))
    assert least > 10
    seen, told = count_network_rows(eps_model), []
    assert not estimate(trainer, lambda *done: told.append(done)).from_shapes
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    planning = sum(seen)
    replace(method, steps=least).fit(eps_model, erasure)
    assert 0 < planning <= 0.1 * (sum(seen) - planning)


def test_terms_are_asked_without_the_network(eps_model):
    """Also one that attacks the network before it asks."""
    method = methods.get("advunlearn")(**shorten("advunlearn", warm_up=0, attack_steps=2, retain_template="a {}"))
    trainer, seen = method.build_trainer(eps_model, Erasure(("cat",))), count_network_rows(eps_model)
    asked = ask_terms(trainer, 1)[2]
    assert any(query.prefix is not None for _, queries in asked for query in queries.values())
    assert not seen
    assert "predict" not in vars(eps_model)


def test_what_needs_numbers_is_planned_by_trial_steps(eps_model, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("this kernel needs numbers")

    monkeypatch.setattr(efface.planning.estimating, "measure_shapes", fail)
    assert not estimate(build_method("esd").build_trainer(eps_model, Erasure(("cat",)))).from_shapes


def test_planning_changes_nothing_and_draws_nothing(eps_model):
    method = methods.get("eap")(**shorten("eap", source="frozen", keep_paths=1))
    without = method.fit(build_half(), Erasure(("cat",)))
    estimate(build_long(method, eps_model))
    trainer = method.build_trainer(eps_model, Erasure(("cat",)))
    sources = [term.source for term in trainer.terms]
    plan = estimate(trainer)
    assert plan.from_shapes
    assert [term.source for term in trainer.terms] == sources
    assert not eps_model.recordings.held
    edit = trainer.train()
    assert all(torch.equal(value, without.values[name]) for name, value in edit.values.items())
    assert edit.meta == without.meta
    assert plan.recorded == sum(
        t.nbytes for d in eps_model.recordings.held.values() for t in (d.states, d.eps_c, d.eps_0)
    )


def test_a_run_that_does_not_fit_is_refused_with_the_plan_and_what_would_fit(eps_model):
    method = methods.get("esd")(**shorten("esd", batch=64, source="frozen"))
    trainer = build_long(method, eps_model)
    plan = estimate(trainer)
    others = suggest_lighter(trainer, plan)
    assert list(others) == ["--micro-batch 1", "--micro-batch 1 --checkpointing"]
    assert not eps_model.unet.is_gradient_checkpointing
    assert others["--micro-batch 1"].need < plan.need
    enough = round(others["--micro-batch 1"].need * SPARE) + 1
    with pytest.raises(
        DoesNotFit, match=r"needs .* there are(.|\n)*a step, 64 of 64 rows(.|\n)*fit with --micro-batch 1 \("
    ):
        require_fit(plan, enough, lambda: others)
    with pytest.raises(DoesNotFit, match="the least by flags is"):
        require_fit(plan, 1000, lambda: others)
    require_fit(plan, round(plan.need * SPARE) + 1, lambda: pytest.fail("asked for others"))
    require_fit(plan, None, lambda: pytest.fail("asked for others"))


def test_what_would_fit_does(eps_model):
    """The plan for smaller pieces holds when a run is really made in them."""
    method = methods.get("esd")(**shorten("esd", batch=4, source="frozen"))
    promised = replace(estimate(build_long(method, eps_model)), micro=1)
    assert promised.need == pytest.approx(measure_peak(replace(method, micro_batch=1), build_half()), rel=TOLERANCE)


def test_where_drawing_takes_most_fewer_pictures_at_once_are_offered(eps_model):
    """And what is promised for one at a time is what that takes; where a step takes more it is no help, and unnamed."""
    method = methods.get("esd")(**shorten("esd", batch=1, source="frozen", paths=16, draw_steps=6))
    trainer = build_long(method, eps_model)
    plan = estimate(trainer)
    others = suggest_lighter(trainer, plan)
    assert eps_model.draw_batch == 0
    promised = others["--checkpointing --draw-batch 1"]
    assert promised.need < others["--checkpointing"].need
    model = build_half()
    model.draw_batch = 1
    model.unet.enable_gradient_checkpointing()
    assert promised.need == pytest.approx(measure_peak(method, model), rel=TOLERANCE)
    busy = methods.get("esd")(**shorten("esd", batch=64, source="frozen", micro_batch=64))
    plan = estimate(build_long(busy, eps_model))
    assert plan.learning > plan.sampling


@pytest.mark.parametrize(("batch", "micro"), [(1, 0), (6, 1), (6, 2), (6, 0)])
def test_planning_makes_no_pass_of_more_rows_than_the_run(batch, micro, eps_model):
    """EAP's student reads two rows for one of each term; passes without a gradient are no matter."""
    method = methods.get("eap")(**shorten("eap", batch=batch, micro_batch=micro, source="frozen", keep_paths=1))
    trainer = build_long(method, eps_model)
    seen: list[int] = []
    hook = eps_model.unet.register_forward_pre_hook(
        lambda _, args: seen.append(len(args[0])) if torch.is_grad_enabled() else None
    )
    estimate(trainer)
    hook.remove()
    assert max(seen) <= min(4, micro or 2 * batch)


def test_what_does_not_fit_even_by_pieces_is_refused_with_what_is_known(eps_model, monkeypatch):
    method = methods.get("esd")(**shorten("esd", batch=8, source="frozen"))
    trainer, network = build_long(method, eps_model), eps_model._call_network
    for most, said in (
        (1, r"not even two rows at once fit on cpu; with --micro-batch 1 it would need .*\n(.|\n)*trained tensors"),
        (0, r"not even one row at once fits on cpu beside .* of weights and .* of trained tensors; --checkpointing"),
    ):

        def small(x_t, t, cond, most=most):
            if torch.is_grad_enabled() and len(x_t) > most:
                raise torch.OutOfMemoryError
            return network(x_t, t, cond)

        monkeypatch.setattr(eps_model, "_call_network", small)
        with pytest.raises(DoesNotFit, match=said):
            estimate(trainer)


def test_encoders_rest_unless_they_learn(eps_model):
    still = estimate(build_long(methods.get("esd")(**shorten("esd")), eps_model))
    encoders = (*eps_model.vae.parameters(), *eps_model.text_encoder.parameters(), *eps_model.text_encoder.buffers())
    assert still.resting == count_bytes(encoders)
    live = methods.get("advunlearn")(**shorten("advunlearn", warm_up=5, retain_template="a {}"))
    assert estimate(build_long(live, eps_model)).resting == 0


def test_erase_refuses_from_the_command_line(tmp_path, capsys):
    build_half().save_pretrained(tmp_path / "model")
    args = ["erase", "esd", "--model", str(tmp_path / "model"), "--target", "cat", "--batch", "64", "--draw-steps", "3"]
    args += ["--out", str(tmp_path / "e.safetensors"), "--steps", "100", "--source", "frozen"]
    assert main([*args, "--max-memory", "6MB"]) == 2
    said = capsys.readouterr().err
    assert "taking the fingerprint of the weights: 0 of 1" in said
    assert "planning memory: 3 of 3" in said
    assert "memory that this run needs, at most" in said
    assert "weights of the model" in said
    assert "there are 6.0 MB" in said
    assert "it would fit with --micro-batch 1" in said
    assert not (tmp_path / "e.safetensors").exists()
    assert main([*args, "--max-memory", "some"]) == 2
    assert "write it as 8GB" in capsys.readouterr().err
