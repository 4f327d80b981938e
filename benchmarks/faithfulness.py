"""How far is each method and each attack from its paper? `python -m benchmarks.faithfulness [NAME …]`.

Prints the largest relative differences between the package and the formulas of `benchmarks.published`, which share no
code with it, on a tiny random Stable Diffusion in single precision. Without names it measures all and
writes docs/faithfulness.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efface import attacks as known_attacks
from efface import methods as known_methods

from .published import attacks, closed, guides, mixed, pictures, searches, trained
from .published.bench import Difference

PAGE = Path(__file__).parents[1] / "docs" / "faithfulness.md"
BOUND = 1e-5
"""Differences above this fail the tests: single precision rounds the losses to about 1e-6."""


@dataclass(frozen=True)
class Row:
    """The comparison of a method or an attack with its paper."""

    measure: Callable[[Any], Difference] | None
    """None where there is no formula."""
    against: str
    """Repository at a commit where the authors' code was read; else the paper, and what of it."""
    options: str = ""
    """Options of ours, and published variants that are not the default."""


ROWS: dict[str, Row] = {
    "esd": Row(trained.esd, "rohitgandikota/erasing 25613d2; eq. 7", "second release: frozen source, noxattn-layers"),
    "eap": Row(
        trained.eap,
        "tuananhbui89/Erasing-Adversarial-Preservation 7222925",
        "ours: search-gradient score, margin",
    ),
    "abo": Row(trained.abo, "arXiv 2312.12807, our reconstruction: no code, abstract alone", "all is ours"),
    "erasediff": Row(
        pictures.erasediff,
        "JingWu321/EraseDiff 14f4e98; the step by a solver",
        "--rate fixed is the scripts'; ours: an epoch restores weights where the formula says",
    ),
    "p-esd": Row(trained.p_esd, "arXiv 2405.16534, our reconstruction: no code", "the mask's relaxation is ours"),
    "p-ac": Row(trained.p_ac, "arXiv 2405.16534, our reconstruction: no code", "the mask's relaxation is ours"),
    "ac": Row(pictures.ac, "nupurkmr9/concept-ablation c11fb1b; eqs. 4, 5", "ours: teacher frozen"),
    "salun": Row(
        pictures.salun,
        "OPTML-Group/Unlearn-Saliency a6e89fd; a masked step too",
        "ours: --looks, saliency of the random-label loss",
    ),
    "age": Row(
        trained.age, "tuananhbui89/Adaptive-Guided-Erasure b56a903; hard and soft choice", "no-hard: artists' script"
    ),
    "spm": Row(
        trained.spm, "Con6924/SPM 3dd762e", "transport: paper (gamma) or release (gamma squared); anchors are words"
    ),
    "advunlearn": Row(trained.advunlearn, "OPTML-Group/AdvUnlearn 9d23124", "attack-start latest: command line's"),
    "uce": Row(
        closed.uce, "rohitgandikota/unified-concept-editing 28c81ed; eq. 7, both releases", "tokens all: first release"
    ),
    "rece": Row(
        closed.rece, "CharlesGong12/RECE 403a67f; two targets, two epochs", "reg 1e-3, epochs 1: artists, objects"
    ),
    "nullspace": Row(closed.nullspace, "constraint of arXiv 2410.02355, by least squares", "all is ours"),
    "mace": Row(
        closed.mace,
        "Shilin-LU/MACE 057e7a6; refinement and fusion",
        "ours: masks cut from the attention, words preserved at 0.1",
    ),
    "stereo": Row(
        guides.stereo, "arXiv 2408.16807 as fmp453/erase-eval fab9900 has it; last erasing", "contexts are ours"
    ),
    "gem": Row(trained.gem, "arXiv 2606.00140, our reconstruction: abstract and a summary", "d, eta, rank are ours"),
    "sld": Row(guides.sld, "arXiv 2211.05105, eqs. 3 to 8; diffusers' pipeline in the tests", "acts at guidance 1 too"),
    "safree": Row(guides.safree, "jaehong31/SAFREE b8b2c3f", "no latent re-attention"),
    "negative": Row(guides.negative, "diffusers' negative_prompt", ""),
    "neggrad": Row(trained.neggrad, "gradient ascent, no one paper", "values are ours"),
    "finetune": Row(trained.finetune, "the training loss", "values are ours"),
    "hardened": Row(mixed.hardened, "AdvUnlearn's attack with EAP's preservation", "all is ours"),
    "surgical": Row(mixed.surgical, "ABO's objective, our reconstruction, with EAP's preservation", "all is ours"),
    "compose": Row(mixed.compose, "ESD's objective with ABO's preservation", "presets it equals: tests/methods"),
}

ATTACKS: dict[str, Row] = {
    "unlearndiff": Row(
        searches.unlearndiff,
        "OPTML-Group/Diffusion-MU-Attack 5a3e5d3",
        "five tokens: nudity's; words of one token each",
    ),
    "p4d": Row(searches.p4d, "joycenerd/P4D 2cf3cda", "no P4D-K; words of one token each"),
    "mma": Row(
        searches.mma,
        "cure-lab/MMA-Diffusion d5701a5",
        "ours: all hidden states, the prompt so far stays, a query every 100 of 1000 steps",
    ),
    "ring-a-bell": Row(
        attacks.ring_a_bell,
        "chiayi-hsu/Ring-A-Bell e4585ad, InversePrompt",
        "ours: nearest, pairs of prompts for things",
    ),
    "inversion": Row(
        searches.inversion, "NYU-DICE-Lab/circumventing-concept-erasure bb7034b", "ours: several tokens, templates"
    ),
    "completion": Row(attacks.completion, "SDEdit, arXiv 2108.01073; RePaint in the tests", "strengths are ours"),
    "revive": Row(
        attacks.revive,
        "Brankozz/Roots-Beneath-the-Cut 680c979: the completion",
        "ours: signs=mirror, lower quantiles, noise found by its fp16 digits",
    ),
    "soft-prompt": Row(searches.soft_prompt, "textual inversion of each prompt, no one paper", "values are ours"),
    "relearn": Row(searches.relearn, "the training loss, no one paper", "values are ours"),
    "quantise": Row(attacks.quantise, "symmetric rounding by channels", "values are ours"),
    "prune": Row(attacks.prune, "pruning by magnitude", "values are ours"),
    "merge": Row(attacks.merge, "interpolation of weights", "values are ours"),
    **dict.fromkeys(
        ("random-prefix", "synonyms", "characters", "seeds"),
        Row(None, "no formula; counted out in tests/attacks", "all is ours"),
    ),
}

HEAD = """# How far each method and attack is from its paper

By default, every method and attack does what its paper and the authors' code do. Where we think that something else is
better, it is an option, and its documentation says that it is ours. Any further difference is described at the head of
the file of the method or attack (`src/efface/methods/`, `src/efface/attacks/`).

The figures are the largest relative differences between the package and an independent implementation of the formula
that shares no code with it (`benchmarks/published/`). They are measured on a tiny random Stable Diffusion in single
precision, with a student that differs from the base: for each loss; for the gradient, by its norm; for a closed form's
change of the weights, by its norm; and for the latent that is drawn. Both use the package's states x_t. The table is
made by `python -m benchmarks.faithfulness`, and one row by `python -m benchmarks.faithfulness esd`. Every row is a test
(`tests/methods/test_faithfulness.py`), which fails above 1e-5. `tests/methods/test_published_defaults.py` compares the
default values with a table of the papers' values. The diagnosis of neurons is compared in other tests
(`tests/functional/`).

| method | compared with | loss | gradient | closed form | drawn latent | options and variants |
| --- | --- | --- | --- | --- | --- | --- |
"""

SECOND = """
## Attacks

Of each attack the error that it lowers, its gradient, and what a step or two change, by the norm; measured in the same
way, on the same model with its cross-attention moved at random.

| attack | compared with | error | gradient | step or change | latent | what differs |
| --- | --- | --- | --- | --- | --- | --- |
"""


def format_table(found: dict[str, Difference], rows: Mapping[str, Row] = ROWS) -> str:
    """Lists the rows of the page."""

    def say(value: float | None) -> str:
        return "–" if value is None else f"{value:.0e}".replace("e-0", "e-") if value else "0"

    lines = []
    for name, row in rows.items():
        d = found.get(name, Difference())
        figures = " | ".join(say(v) for v in (d.loss, d.gradient, d.closed_form, d.prediction))
        lines.append(f"| {name} | {row.against} | {figures} | {row.options or '–'} |")
    return "\n".join(lines) + "\n"


def measure_differences(chosen: Sequence[str]) -> dict[str, Difference]:
    """Measures the differences of some methods and attacks; KeyError for one that has no row."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny import tiny_model

    rows = ROWS | ATTACKS
    return {name: measure(tiny_model()) for name in chosen if (measure := rows[name].measure)}


def main(chosen: Sequence[str]) -> None:
    every = [*known_methods.list_names(), *known_attacks.list_names()]
    if unknown := [name for name in chosen or every if name not in ROWS | ATTACKS]:
        raise SystemExit(f"no comparison of {', '.join(unknown)}; there are {', '.join(ROWS | ATTACKS)}")
    found = measure_differences(chosen or every)
    for name, difference in found.items():
        print(f"{name}: {difference}")
    if not chosen:
        PAGE.write_text(HEAD + format_table(found) + SECOND + format_table(found, ATTACKS), encoding="utf-8")
        print(PAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
