"""Run on the stand-in device: attacks, guides, drawing and parked parts, each beside the CPU; prints JSON, by case."""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
from tiny_pair import DTYPES, count_waits, open_pair

import efface
from attack_context import build_context, build_rows
from efface import attacks
from efface.attacks.base import propose_within_budget
from efface.concept import Erasure, Prompt
from efface.edits.edit import Edit
from efface.models.base import Model
from tiny import small_pipeline
from tiny_fits import build_quick

SHORT: dict[str, Any] = {"queries": 1, "steps": 2, "generations": 2, "population": 6, "length": 2, "tokens": 2}
SHORT |= {"top": 4, "candidates": 4, "pictures": 3, "batch": 2, "start": "car"}
GRADIENTS = ("unlearndiff", "soft-prompt", "p4d", "inversion", "mma", "relearn")
PARKED = ("unlearndiff", "soft-prompt", "inversion", "p4d", "mma", "stereo", "compose")
"""Attacks, and methods that search, among token embeddings."""
ATTACKED: dict[str, Any] = {"objective": "attacked", "warm_up": 0, "attack_steps": 2, "attack_tokens": 2}
GUIDES = ("negative", "sld", "safree", "spm")


def list_candidates(name: str, model: Model) -> dict[str, Any]:
    """The first candidates of an attack on the model itself: their words, and how large their embeddings are."""
    known = {field.name for field in dataclasses.fields(attacks.get(name))}
    attack = attacks.build_attack(name, overrides={key: value for key, value in SHORT.items() if key in known})
    context = dataclasses.replace(build_context(model, None), steps=2)
    first = next(propose_within_budget(attack, context, build_rows("a cat", "a red cat")))
    prompts = [c.prompt if isinstance(c.prompt, Prompt) else Prompt(c.prompt) for c in first if c is not None]
    sizes = [float(p.embedding.float().norm()) for p in prompts if p.embedding is not None]
    return {"words": [p.text for p in prompts], "sizes": sizes}


def compare_candidates(name: str, pair: dict[str, Model]) -> dict[str, Any]:
    there, _, sites = count_waits(lambda _: list_candidates(name, pair["cuda"]))
    return {"cuda": there, "cpu": list_candidates(name, pair["cpu"]), "sites": dict(list(sites.items())[:6])}


def compare_drawings(name: str, pair: dict[str, Model]) -> dict[str, Any]:
    """The largest difference of two pictures, in levels of 255, under a guide, and how far the guide moves them."""
    edit = Edit({}, {}) if name == "plain" else build_quick(name, pair["cpu"]).fit(pair["cpu"], Erasure(("cat",)))
    found = {}
    for device, model in pair.items():
        plain = model.images(["a cat", "a dog"], [1, 2], steps=3)
        if name == "plain":
            found[device] = (plain, plain)
            continue
        with edit.apply(model):
            found[device] = (plain, model.images(["a cat", "a dog"], [1, 2], steps=3))
    far = [(a.int() - b.int()).abs().float().mean().item() for a, b in zip(*found.values(), strict=True)]
    return {"far": max(far), "moves": (found["cpu"][0].int() - found["cpu"][1].int()).abs().max().item()}


def run_parked(name: str, dtype: str) -> dict[str, Any]:
    """An attack, or a method that searches embeddings, with parts that lie on the CPU meanwhile."""
    there = efface.load(small_pipeline().to(dtype=DTYPES[dtype]), "cuda", offload=True)
    here = efface.load(small_pipeline().to(dtype=DTYPES[dtype]), "cpu")
    if name in attacks.list_names():
        return {"cuda": list_candidates(name, there), "cpu": list_candidates(name, here)}
    for model in (there, here):
        model.own_words = ("cat", "dog", "car", "rose", "object")  # type: ignore[attr-defined]
    methods = [build_quick(name, m) for m in (there, here)]
    if name == "compose":
        methods = [dataclasses.replace(method, **ATTACKED) for method in methods]
    one, two = (method.fit(m, Erasure(("cat",))) for method, m in zip(methods, (there, here), strict=True))
    apart = sum(float((v.cpu().double() - two.values[k].double()).square().sum()) for k, v in one.values.items())
    return {"far": (apart / sum(float(v.double().square().sum()) for v in two.values.values())) ** 0.5}


def count_waits_of_drawing(pair: dict[str, Model]) -> dict[str, Any]:
    """How often the host waits in a drawing of so many steps."""
    model, found = pair["cuda"], {}
    cond, uncond = model.encode(["a cat", "a dog"]), model.encode([""])
    for steps in (2, 7):
        _, _, sites = count_waits(lambda _, n=steps: model.sample(cond, uncond, [1, 2], steps=n, sampler="ddim"))
        found[str(steps)] = {"waits": sum(sites.values()), "sites": sites}
    return found


def main(dtype: str, *only: str) -> None:
    pair = open_pair(dtype)
    gradients = GRADIENTS if dtype == "fp32" else GRADIENTS[:2]
    cases: dict[str, Callable[[], Any]] = {
        f"attack {name}": lambda n=name: compare_candidates(n, pair) for name in gradients
    }
    others = ("synonyms", "seeds", "ring-a-bell", "random-prefix")
    cases |= {f"attack {name}": lambda n=name: compare_candidates(n, pair) for name in others}
    cases |= {f"draw {name}": lambda n=name: compare_drawings(n, pair) for name in ("plain", *GUIDES)}
    cases["waits of drawing"] = lambda: count_waits_of_drawing(pair)
    if dtype == "fp32":
        for name in PARKED:
            cases[f"parked {name}"] = lambda n=name: run_parked(n, dtype)
    found = {}
    for name, case in cases.items():
        if only and name not in only:
            continue
        try:
            torch.manual_seed(0)
            found[name] = case()
        except Exception:
            found[name] = {"error": traceback.format_exc()[-1800:]}
    print(json.dumps(found))


main(*sys.argv[1:])
