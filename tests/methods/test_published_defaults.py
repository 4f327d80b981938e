"""The defaults of every method and of the published attacks beside a table of the papers' values.

The table was written from the papers and the authors' code, not from the package: the source of each entry stands
beside it. A default that is not the paper's has to be changed here too, and said at the head of the method's file.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from efface import attacks, methods

OLD_ESD = {"weights": "xattn", "steps": 1000, "lr": 1e-5, "batch": 1, "draw_steps": 50, "guidance": 3.0, "eta": 1.0}
OLD_ESD |= {"sampler": "ddim"}
"""Of ESD's first release, which EAP and AGE share: 1000 iterations of batch 1, Adam 1e-5, DDIM 50, guidance 3."""

PUBLISHED: dict[str, dict[str, Any]] = {
    # erasing 25613d2, first release; x_t by the model that is trained, errors in noise.
    "esd": {**OLD_ESD, "source": "student", "space": "eps"},
    # Erasing-Adversarial-Preservation 7222925, run_imagenette.sh: gumbel_lr 1e-2, temp 2, hard 1, 100 centres of the
    # 1000 closest for each word, pgd_num_steps 2, no weight between the losses, x0 space, nothing filtered by distance.
    "eap": {
        **OLD_ESD,
        "source": "student",
        "space": "x0",
        "search_lr": 1e-2,
        "temperature": 2.0,
        "hard": True,
        "centres": 100,
        "k_closest": 1000,
        "search_turns": 1,
        "keep_weight": 1.0,
        "margin": 0.0,
        "search_gradient": "straight-through",
    },
    # Adaptive-Guided-Erasure b56a903, erase_imagenette.sh: temp 0.1, hard 1, 100 centres of 100 closest, lamda 1;
    # gumbel_topk's own default is 5, for the soft choice.
    "age": {
        **OLD_ESD,
        "source": "student",
        "space": "x0",
        "search_lr": 1e-2,
        "temperature": 0.1,
        "hard": True,
        "top": 5,
        "centres": 100,
        "k_closest": 100,
        "search_turns": 1,
        "keep_weight": 1.0,
        "margin": 0.0,
    },
    # concept-ablation c11fb1b: keys and values, 2e-6 scaled by the batch of 4, 200 steps on one GPU, 1000 pictures,
    # the start token's key and value detached, the student's own prediction as the target.
    "ac": {
        "weights": "xattn-strict",
        "space": "eps",
        "lr": 4 * 2e-6,
        "batch": 4,
        "steps": 200,
        "pictures": 1000,
        "variant": "model",
        "teacher": "student",
        "detach_start": True,
    },
    # EraseDiff 14f4e98, erasediff_cls.py: whole U-Net, 60 steps of 16, Adam 1e-5, lambda 1, "a photo of a pokemon".
    "erasediff": {
        "weights": "full",
        "space": "eps",
        "steps": 60,
        "batch": 16,
        "lr": 1e-5,
        "eta": 1.0,
        "wrong": "label",
        "label": "a photo of a pokemon",
        "antithetic": False,
    },
    # Unlearn-Saliency a6e89fd, nsfw_removal.py and generate_mask.py: full, alpha 0.1, 800 + 800 pictures once by 8,
    # Adam 1e-5, the largest half, c_guidance 7.5 over the whole forget set.
    "salun": {
        "weights": "full",
        "space": "eps",
        "alpha": 0.1,
        "pictures": 800,
        "steps": 800 // 8,
        "batch": 8,
        "lr": 1e-5,
        "share": 0.5,
        "saliency_guidance": 7.5,
        "looks": 0,
    },
    # SPM 3dd762e, configs/pikachu: rank 1, 3000 iterations of batch 1 at 1e-4, 30 denoising steps at guidance 3,
    # guidance_scale 1, la_strength 1000, sampling_batch_size 4, transformers' layers.
    "spm": {
        "weights": "transformers",
        "space": "eps",
        "source": "student",
        "sampler": "ddim",
        "rank": 1,
        "steps": 3000,
        "batch": 1,
        "lr": 1e-4,
        "draw_steps": 30,
        "guidance": 3.0,
        "eta": 1.0,
        "la_strength": 1000.0,
        "anchors": 4,
        "gate": True,
        "transport": "paper",
    },
    # AdvUnlearn 9d23124, the README's command over the command line's own defaults.
    "advunlearn": {
        "weights": "text-encoder-full",
        "space": "eps",
        "source": "student",
        "sampler": "ddim",
        "steps": 1000,
        "batch": 1,
        "lr": 1e-5,
        "draw_steps": 50,
        "guidance": 3.0,
        "eta": 1.0,
        "attack_steps": 30,
        "attack_lr": 1e-3,
        "attack_tokens": 1,
        "attack_start": "random",
        "warm_up": 200,
        "retain_batch": 5,
        "retain_weight": 0.3,
    },
    # unified-concept-editing 28c81ed, uce_sd_erase.py.
    "uce": {"lamb": 0.5, "erase_scale": 1.0, "preserve_scale": 1.0, "tokens": "last-subject", "preserve_vocabulary": 0},
    # RECE 403a67f, scripts/nudity.sh.
    "rece": {"epochs": 3, "reg": 0.1, "lamb": 0.1, "erase_scale": 1.0, "preserve_scale": 0.1, "preserve_vocabulary": 0},
    # MACE 057e7a6: rank 1, batch 1; 120 steps of explicit content, the rest of erase_ship.yaml.
    "mace": {"rank": 1, "batch": 1, "steps": 120, "lamb": 1000.0, "focal": True, "segmenter": ""},
    # STEREO as in erase-eval fab9900: 4 rounds, textual inversion of 3000 steps at 5e-3, noxattn at 5e-6, then 2e-5
    # for 200 steps, scale 2: +1 for anchors, -3 for negatives.
    "stereo": {
        "weights": "noxattn",
        "space": "eps",
        "source": "student",
        "guidance": 3.0,
        "batch": 1,
        "attack_tokens": 1,
        "rounds": 4,
        "attack_steps": 3000,
        "attack_lr": 5e-3,
        "search_lr": 5e-6,
        "lr": 2e-5,
        "steps": 200,
        "pull": 1.0,
        "push": 3.0,
    },
    # safe-latent-diffusion a42923c: four levels, Hyp-Medium where none is named.
    "sld": {
        "level": "medium",
        "template": "{}",
        **dict.fromkeys(("warm_up", "scale", "threshold", "momentum_scale", "momentum_beta")),
    },
    # SAFREE b8b2c3f, its nudity settings.
    "safree": {"alpha": 0.01, "self_validation": True, "up_t": 10, "sharpness": 2.5, "midpoint": 5.333},
    # arXiv 2606.00140, by a summary of its settings: 250 updates at 1e-3 on FLUX, the first 10 steps.
    "gem": {"weights": "qk", "steps": 250, "lr": 1e-3, "first": 10},
}
HOUSE = {"templates", "seed", "micro_batch", "moments", "paths", "refresh", "exclude"}
"""How the package works rather than what it computes: prompts, memory, how states are shared out."""
PICTURES = {"draw_steps", "guidance", "forget_images", "remain_images", "remain_words"}
"""How pictures are drawn that the authors had from elsewhere: from data sets, or by other programs."""
OURS: dict[str, set[str]] = {
    "esd": {"beyond"},
    "eap": {"beyond", "vocabulary", "keep_paths", "keep_source"},
    "age": {"vocabulary", "keep_paths", "keep_source"},
    "ac": {"draw_steps", "guidance", "anchor_images"},
    "erasediff": {*PICTURES, "pictures", "rate", "inner"},
    "salun": {*PICTURES, "antithetic"},
    "spm": {"anchor_words"},
    "advunlearn": {"retain_template", "retain_words", "retain_paths"},
    "uce": {"keep_empty"},
    "mace": {
        *("lr", "preserve_scale", "preserve_words", "threshold", "end_tokens", "pictures", "draw_steps", "guidance"),
        "contexts",
    },
    "stereo": {
        *("search_eta", "attack_decay", "start_word", "contexts", "pictures", "picture_guidance", "draw_steps"),
    },
    "safree": {"negative"},
    "gem": {"batch", "space", "draw_steps", "guidance", "source", "sampler", "eta", "rank"},
}
"""Further fields that have no value in paper or code, or that differ from it, which the method's file says."""
NONE_PUBLISHED = {
    "abo",
    "p-esd",
    "p-ac",
    "nullspace",
    "negative",
    "neggrad",
    "finetune",
    "compose",
    "surgical",
    "hardened",
}
"""Methods whose papers' values could not be read, or that are no paper's."""

ATTACKS: dict[str, dict[str, Any]] = {
    # MMA-Diffusion d5701a5, textual_attack.py: 1000 substitutions, 20 tokens, top 256, 512 candidates for each.
    "mma": {"queries": 1000 // 100, "steps": 100, "tokens": 20, "top": 256, "candidates": 512},
    # Roots-Beneath-the-Cut 680c979: the completion's signs, the largest magnitude of the row; the mirror is ours.
    "revive": {"signs": ("mirror", "completion"), "quantiles": (0.75, 1.0), "shares": (1.0, 0.6)},
    # Diffusion-MU-Attack 5a3e5d3: 50 timesteps of 40 iterations, five tokens for nudity, Adam 0.01, decay 0.1.
    "unlearndiff": {"queries": 50, "steps": 40, "tokens": 5, "lr": 0.01, "decay": 0.1},
    # P4D 2cf3cda, configs/*: 3000 iterations, a picture every 50, 16 tokens, AdamW 0.1 with decay 0.1.
    "p4d": {"queries": 3000 // 50, "steps": 50, "tokens": 16, "lr": 0.1, "decay": 0.1, "how": "hard"},
    # Ring-A-Bell e4585ad, InversePrompt.ipynb.
    "ring-a-bell": {
        "queries": 1,
        "length": 16,
        "eta": 3.0,
        "population": 200,
        "generations": 3000,
        "mutation": 0.25,
        "crossover": 0.5,
        "names": True,
        "nearest": 0,
    },
    # circumventing-concept-erasure bb7034b, esd/train.sh: 4 x 4 pictures a step, 5e-3 scaled by these 16, 25 pictures.
    "inversion": {
        "queries": 1,
        "steps": 5000,
        "batch": 16,
        "lr": 16 * 5e-3,
        "decay": 0.01,
        "tokens": 1,
        "pictures": 25,
    },
}
ATTACKS_OURS: dict[str, set[str]] = {
    "inversion": {"start", "templates", "style_templates"},
    "revive": {"queries", "least", "weights"},
}
NO_PAPERS = {
    *("characters", "completion", "merge", "prune", "quantise", "random-prefix", "relearn", "seeds", "soft-prompt"),
    "synonyms",
}
"""Attacks whose settings are ours."""
LEVELS = {"weak": (15, 200, 0.0, 0.0, 0.0), "medium": (10, 1000, 0.01, 0.3, 0.4)}
LEVELS |= {"strong": (7, 2000, 0.025, 0.5, 0.7), "max": (0, 5000, 1.0, 0.5, 0.7)}
"""SLD's warm-up, scale, threshold and both momenta by level."""


def list_defaults(kind: type) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("name", methods.list_names())
def test_a_methods_defaults_are_its_papers(name: str) -> None:
    assert (name in PUBLISHED) != (name in NONE_PUBLISHED), f"{name} needs a row: its paper's values, or none"
    own = list_defaults(methods.get(name))
    assert {key: own[key] for key in PUBLISHED.get(name, {})} == PUBLISHED.get(name, {})
    if name in PUBLISHED:
        ours = OURS.get(name, set())
        assert not PUBLISHED[name].keys() & ours and ours <= own.keys()
        assert own.keys() - HOUSE == (PUBLISHED[name].keys() | ours) - HOUSE, "a field has no row in this table"


@pytest.mark.parametrize("name", attacks.list_names())
def test_an_attacks_defaults_are_its_papers(name: str) -> None:
    assert (name in ATTACKS) != (name in NO_PAPERS), f"{name} needs a row: its paper's values, or none"
    own = list_defaults(attacks.get(name))
    assert {key: own[key] for key in ATTACKS.get(name, {})} == ATTACKS.get(name, {})
    if name in ATTACKS:
        assert own.keys() == ATTACKS[name].keys() | ATTACKS_OURS.get(name, set())


def test_slds_levels_are_the_papers() -> None:
    from efface.methods.sld import LEVELS as OWN

    assert {name: tuple(level.values()) for name, level in OWN.items()} == LEVELS
