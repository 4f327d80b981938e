"""The losses of the trained methods, from their papers and the authors' code, by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from efface.concept import Erasure
from efface.methods.abo import ABO
from efface.methods.advunlearn import AdvUnlearn
from efface.methods.age import AGE
from efface.methods.eap import EAP
from efface.methods.esd import ESD
from efface.methods.finetune import FineTune
from efface.methods.gem import GEM
from efface.methods.neggrad import NegGrad
from efface.methods.p_ac import PAC
from efface.methods.p_esd import PESD
from efface.methods.spm import SPM

from .bench import Bench, Difference, Losses, mse

QUICK: dict[str, Any] = {"steps": 4, "batch": 3, "draw_steps": 3}
PICTURES: dict[str, Any] = {"pictures": 3, "remain_words": 2, "weights": "xattn"}
CAT, TO_DOG = Erasure(("cat",)), Erasure(("cat",), anchor="dog")


def negative_guidance(bench: Bench, weights: dict[str, Tensor] | None = None, eta: float = 1.0) -> Tensor:
    """|| eps_th(x_t, c) - [eps*("") - eta (eps*(c) - eps*(""))] ||^2 in units of noise (arXiv 2303.07345, eq. 7)."""
    at = bench.build_queries(0)["student"].states
    n = len(at.x)
    eps_c, eps_0 = bench.base(at, bench.read("cat", n=n)), bench.base(at, bench.read("", n=n))
    return mse(bench.student(at, bench.read("cat", n=n), weights), eps_0 - eta * (eps_c - eps_0))


def esd(model: Any) -> Difference:
    return Bench(ESD(**QUICK, eta=1.5), model, CAT).compare(lambda b: {"erase": negative_guidance(b, eta=1.5)})


def p_esd(model: Any) -> Difference:
    """ESD's loss of th * m(s), plus beta mean(1 - m); m is 0 or 1 by the logits' sign, with the sigmoid's gradient."""

    def theirs(b: Bench) -> Losses:
        masked, soft = _masked(b)
        return {"erase": negative_guidance(b, masked), "cost": 0.3 * (1 - soft).mean()}

    method = PESD(**QUICK, lr=2.0, start=0.1, beta=0.3)
    return Bench(method, model, CAT, far=1.0).compare(theirs)


def p_ac(model: Any) -> Difference:
    """|| eps_{th * m(s)}(x_t, c_e) - eps*(x_t, c_anchor) ||^2 plus beta mean(1 - m)."""

    def theirs(b: Bench) -> Losses:
        at, (masked, soft) = b.build_queries(0)["student"].states, _masked(b)
        goal = b.base(at, b.read("dog", n=3))
        return {"erase": mse(b.student(at, b.read("cat", n=3), masked), goal), "cost": 0.3 * (1 - soft).mean()}

    method = PAC(**QUICK, lr=2.0, start=0.1, beta=0.3)
    return Bench(method, model, TO_DOG, far=1.0).compare(theirs)


def _masked(b: Bench) -> tuple[dict[str, Tensor], Tensor]:
    """The weights under their masks, and every weight's soft mask."""
    soft = [torch.sigmoid(s) for s in b.params]
    masks = [(s > 0).float() + p - p.detach() for s, p in zip(b.params, soft, strict=True)]
    names = b.trainer.update.list_changed_names()
    base = {name: b.unet.get_parameter(name.removeprefix("unet.")) for name in names}
    return {n: base[n].detach() * m for n, m in zip(names, masks, strict=True)}, torch.cat([p.flatten() for p in soft])


def eap(model: Any) -> Difference:
    """Both players: L1 + L2 in units of pictures, and pi's ascent of L2 through the student's condition alone."""
    found = Difference()
    for learner in (0, 1):
        bench = Bench(EAP(**QUICK, centres=4), model, CAT, learner)
        state = before_choice(bench)

        def theirs(b: Bench, learner: int = learner, state: Tensor = state) -> Losses:
            table, chosen = choose(b, state, learner, hard=True, temperature=2.0, top=0)
            at = b.build_queries(1)["student"].states
            weight = b.x0_weight(at.t)
            held = (chosen.detach() @ table).unflatten(1, (8, -1))
            words = held if learner == 0 else (chosen @ table).unflatten(1, (8, -1))
            weights = b.weights() if learner == 0 else moved(b)
            keep = mse(b.student(at, words, weights), b.base(at, held), weight)
            if learner:
                return {"keep": keep}
            own = b.build_queries(0)["student"].states
            eps_c, eps_0 = b.base(own, b.read("cat", n=3)), b.base(own, b.read("", n=3))
            goal = eps_0 - (eps_c - eps_0)
            return {"erase": mse(b.student(own, b.read("cat", n=3)), goal, b.x0_weight(own.t)), "keep": keep}

        found = found.join(bench.compare(theirs))
    return found


def age(model: Any) -> Difference:
    """Both players and both choices: one-hot, and soft over the five likeliest, renormalised."""
    found = Difference()
    for hard, temperature in ((True, 0.1), (False, 2.0)):
        for learner in (0, 1):
            bench = Bench(AGE(**QUICK, centres=7, hard=hard, temperature=temperature), model, CAT, learner)
            state = before_choice(bench)

            def theirs(
                b: Bench, learner: int = learner, state: Tensor = state, hard: bool = hard, at_t: float = temperature
            ) -> Losses:
                table, chosen = choose(b, state, learner, hard, at_t, top=5)
                at = b.build_queries(1)["student"].states
                held = (chosen.detach() @ table).unflatten(1, (8, -1))
                words = held if learner == 0 else (chosen @ table).unflatten(1, (8, -1))
                weights = b.weights() if learner == 0 else moved(b)
                keep = mse(b.student(at, words, weights), b.base(at, held), b.x0_weight(at.t))
                if learner:
                    return {"keep": keep}
                own, cat = b.build_queries(0)["student"].states, b.read("cat", n=3)
                eps_e, eps_t = b.base(own, cat), b.base(own, held)
                return {"erase": mse(b.student(own, cat), eps_t - (eps_e - eps_t), b.x0_weight(own.t)), "keep": keep}

            found = found.join(bench.compare(theirs))
    return found


def before_choice(bench: Bench) -> Tensor:
    """The state of the step's generator before the search chooses; by it the noise can be drawn again."""
    search, states = bench.trainer.terms[1].search, []  # type: ignore[attr-defined]
    select = search.select

    def note(context: Any, step: Any) -> Any:
        if search.last is None or search.last[0] is not step:
            states.append(step.generator.get_state())
        return select(context, step)

    search.select = note
    with bench.trainer.compute_losses(bench.step()):
        pass
    return states[0]


def choose(b: Bench, state: Tensor, learner: int, hard: bool, temperature: float, top: int) -> tuple[Tensor, Tensor]:
    """The candidates' embeddings [n, L d], and the choice [rows, n] by logits and Gumbel noise, row by row."""
    search = b.trainer.terms[1].search  # type: ignore[attr-defined]
    logits = b.params[0] if learner else search.logits[0].detach()
    generator, rows = torch.Generator(), []
    generator.set_state(state)
    for _ in range(3):
        u = torch.rand(len(logits), generator=generator)
        y = torch.softmax((logits - torch.log(-torch.log(u + 1e-10) + 1e-10)) / temperature, -1)
        if hard:
            one = torch.zeros_like(y)
            one[y.argmax()] = 1
            rows.append((one - y).detach() + y)
        else:
            kept = y * (y >= y.sort(descending=True).values[top - 1])
            rows.append(kept / kept.sum())
    return b.read(*search.lists[0]).flatten(1), torch.stack(rows)


def moved(b: Bench) -> dict[str, Tensor]:
    update = b.trainer.update
    return dict(zip(update.list_changed_names(), [p.detach() for p in update.list_params()], strict=True))


def abo(model: Any) -> Difference:
    """|| eps_th(c_e) - sg eps_th("") - G ||^2 + lambda || eps_th("") - eps*("") ||^2, G to an anchor and away."""
    found = Difference()
    for erasure in (CAT, TO_DOG):

        def theirs(b: Bench, erasure: Erasure = erasure) -> Losses:
            at, cat, empty = b.build_queries(0)["student_c"].states, b.read("cat", n=3), b.read("", n=3)
            eps_0, now_0 = b.base(at, empty), b.student(at, empty)
            goal = b.base(at, b.read("dog", n=3)) - eps_0 if erasure.anchor else -1.5 * (b.base(at, cat) - eps_0)
            return {"erase": mse(b.student(at, cat) - now_0.detach(), goal), "keep": mse(now_0, eps_0)}

        found = found.join(Bench(ABO(**QUICK, eta=1.5, hold=0.7), model, erasure).compare(theirs, 0.7))
    return found


def gem(model: Any) -> Difference:
    """relu(d(v_th(c), v*(c_anchor)) - eta d(v_th(c), v*(c))) row by row, on factors beside the weights."""

    def theirs(b: Bench) -> Losses:
        at = b.build_queries(0)["student"].states
        said = b.student(at, b.read("cat", n=3), _adapted(b))
        own, anchor = b.base(at, b.read("cat", n=3)), b.base(at, b.read("dog", n=3))
        pull, push = ((said - goal).square().flatten(1).mean(1) for goal in (anchor, own))
        return {"erase": torch.clamp(pull - 0.3 * push, min=0).mean()}

    return Bench(GEM(**QUICK, eta=0.3), model, TO_DOG, far=0.02).compare(theirs)


def neggrad(model: Any) -> Difference:
    def theirs(b: Bench) -> Losses:
        return {"erase": -find_denoising(b, 0), "keep": find_denoising(b, 1)}

    return Bench(NegGrad(**QUICK, **PICTURES, remain_weight=0.4), model, CAT).compare(theirs, 0.4)


def finetune(model: Any) -> Difference:
    return Bench(FineTune(**QUICK, **PICTURES), model, CAT).compare(lambda b: {"keep": find_denoising(b, 0)})


def find_denoising(b: Bench, term: int) -> Tensor:
    """|| eps_th(x_t, c) - eps ||^2, the noise found again from the noised picture."""
    asked = b.build_queries(term)["student"]
    at, bars = asked.states, b.model.pipeline.scheduler.alphas_cumprod[asked.states.t].view(-1, 1, 1, 1)
    noise = (at.x - bars.sqrt() * at.known["x0"]) / (1 - bars).sqrt()
    return mse(b.student(at, b.read(*asked.prompts)), noise)


def spm(model: Any) -> Difference:
    """Adapters beside the layers, up (down x), as the authors' module computes them; ESD's loss and the anchors'."""

    def theirs(b: Bench) -> Losses:
        weights = _adapted(b)
        asked = b.build_queries(1)["student"]
        at, words = asked.states, asked.cond.tokens  # scaled embeddings of words, of the step's own choice
        return {
            "erase": negative_guidance(b, weights),
            "keep": mse(b.student(at, words, weights), b.base(at, words)),
        }

    method = SPM(**QUICK, anchors=2, la_strength=10.0, gate=False)
    return Bench(method, model, CAT).compare(theirs, 10.0)


def _adapted(b: Bench) -> dict[str, Tensor]:
    names, half = b.trainer.update.list_changed_names(), len(b.params) // 2
    downs, ups = b.params[:half], b.params[half:]
    base = [b.unet.get_parameter(name.removeprefix("unet.")).detach() for name in names]
    return {n: w + (up @ down).view_as(w) for n, w, up, down in zip(names, base, ups, downs, strict=True)}


def advunlearn(model: Any) -> Difference:
    """ESD's loss on the prompt behind the prefix that was found, and the retained words', through the text encoder."""

    def theirs(b: Bench) -> Losses:
        asked, kept = b.build_queries(0)["student"], b.build_queries(1)["student"]
        at, n = asked.states, len(asked.states.x)
        eps_c, eps_0 = b.base(at, b.read("cat", n=n)), b.base(at, b.read("", n=n))
        hard = _encode(b, ["cat"] * n, asked.prefix)
        erase = mse(b.unet(at.x, at.t, hard).sample, eps_0 - (eps_c - eps_0))
        held, goal = _encode(b, list(kept.prompts), None), b.base(kept.states, b.read(*kept.prompts))
        return {"erase": erase, "keep": mse(b.unet(kept.states.x, kept.states.t, held).sample, goal)}

    method = AdvUnlearn(**QUICK, warm_up=0, attack_steps=3, retain_batch=2, retain_template="a {}", retain_words=5)
    return Bench(method, model, CAT, far=0.02).compare(theirs, 0.3)


def _encode(b: Bench, prompts: list[str], prefix: Tensor | None) -> Tensor:
    """Final hidden states by the moved encoder."""
    known = dict(b.text.named_parameters())
    names = {n: n.removeprefix("text_encoder.") for n in b.weights()}
    own = {m if m in known else m.removeprefix("text_model."): b.weights()[n] for n, m in names.items()}
    return encode_by(b, own, prompts, prefix)


def encode_by(b: Bench, own: dict[str, Tensor], prompts: list[str], prefix: Tensor | None) -> Tensor:
    """Final hidden states by the encoder with these weights: [start, prefix, words, ends], the ends pushed out of the
    room."""
    ids = b.model.tokenizer(prompts, padding="max_length", max_length=8, return_tensors="pt")["input_ids"]
    table = b.text.get_input_embeddings()
    rows = table(ids).detach()
    if prefix is not None:
        rows = torch.cat([rows[:, :1], prefix.detach().to(rows), rows[:, 1:]], dim=1)[:, :8]
    handle = table.register_forward_hook(lambda _module, _args, _out: rows)
    try:
        return functional_text(b, own, ids)
    finally:
        handle.remove()


def functional_text(b: Bench, weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    return torch.func.functional_call(b.text, weights, (ids,)).last_hidden_state
