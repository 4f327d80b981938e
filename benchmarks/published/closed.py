"""The closed forms, layer by layer as the authors' code has them: inverses of sums over the pairs, or least squares."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efface.concept import Erasure
from efface.methods.mace import MACE
from efface.methods.nullspace import NullSpace
from efface.methods.rece import RECE
from efface.methods.uce import UCE

from .bench import Difference, apart

Layers = Mapping[str, Tensor]
BOTH = Erasure(("cat", "car"), anchor="dog", keep=("rose",))


def layers(model: Any) -> dict[str, Tensor]:
    """Keys and values of every cross-attention [m, d], in fp64."""
    own = dict(model.unet.named_parameters())
    return {f"unet.{n}": p.detach().double() for n, p in own.items() if ".attn2.to_k." in n or ".attn2.to_v." in n}


def read(model: Any, text: str) -> Tensor:
    """Computes the final hidden states [L, d] of a prompt."""
    ids = model.tokenizer([text], padding="max_length", max_length=8, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.text_encoder(ids).last_hidden_state[0].double()


def regress(w: Tensor, pairs: Sequence[tuple[Tensor, Tensor, float]], lamb: float) -> Tensor:
    """(lamb W + sum s v* c') (lamb I + sum s c c')^-1 over pairs of rows c [n, d] and outputs v* [n, m]."""
    one, two = lamb * w, lamb * torch.eye(w.shape[1], dtype=torch.double)
    for c, v, scale in pairs:
        for row, out in zip(c, v, strict=True):
            one, two = one + scale * torch.outer(out, row), two + scale * torch.outer(row, row)
    return one @ torch.linalg.inv(two)


def compare(edit: Any, wanted: Layers, model: Any) -> Difference:
    """Finds the largest difference of a layer's change, relative to that change."""
    base = layers(model)
    assert edit.values.keys() == wanted.keys()
    return Difference(closed_form=max(apart(v.double() - base[n], wanted[n] - base[n]) for n, v in edit.values.items()))


def uce(model: Any) -> Difference:
    """Both releases: last tokens at lamb 0.5; all tokens from there on, and whole prompts kept, at lamb 0.1."""
    found = Difference()
    goal, rose, empty = read(model, "dog"), read(model, "rose"), read(model, "")
    for first in (False, True):
        settings = {"tokens": "all", "lamb": 0.1, "preserve_scale": 0.1, "keep_empty": True} if first else {}
        wanted = {}
        for name, w in layers(model).items():
            span = slice(1, None) if first else slice(1, 2)  # a word of one token stands at 1, its end at 2
            pairs = [(read(model, text)[span], goal[span] @ w.T, 1.0) for text in ("cat", "car")]
            held = [rose, empty] if first else [rose[1:2]]
            pairs += [(rows, rows @ w.T, 0.1 if first else 1.0) for rows in held]
            wanted[name] = regress(w, pairs, 0.1 if first else 0.5)
        found = found.join(compare(UCE(**settings).fit(model, BOTH), wanted, model))
    return found


def rece(model: Any) -> Difference:
    """The first release of UCE, then two epochs: c' by the sums over all layers, and an edit of the present weights."""
    base, request = layers(model), Erasure(("cat", "car"), anchor="dog")
    goal, empty = read(model, "dog"), read(model, "")
    now = {
        name: regress(
            w, [(read(model, t)[1:], goal[1:] @ w.T, 1.0) for t in request.targets] + [(empty, empty @ w.T, 0.1)], 0.1
        )
        for name, w in base.items()
    }
    for _ in range(2):
        square = 0.1 * torch.eye(len(goal[0]), dtype=torch.double) + sum(w.T @ w for w in now.values())
        cross = sum(now[name].T @ w for name, w in base.items())
        back = [read(model, t) @ (torch.linalg.inv(square) @ cross).T for t in request.targets]
        now = {
            name: regress(w, [(c, goal @ w.T, 1.0) for c in back] + [(empty, empty @ w.T, 0.1)] * 2, 0.1)
            for name, w in now.items()
        }
    return compare(RECE(epochs=2, reg=0.1).fit(model, request), now, model)


def nullspace(model: Any) -> Difference:
    """W0 + D N' with N' a basis of what the preserved rows leave, and D by least squares in it."""
    method = NullSpace(preserve_vocabulary=0, tokens="last-subject")
    kept = torch.cat([read(model, ""), read(model, "rose")[1:2]]).numpy()
    _, sizes, rows = np.linalg.svd(kept)
    basis = rows[int((sizes > 1e-6 * sizes[0]).sum()) :].T
    c = torch.stack([read(model, t)[1] for t in BOTH.targets]).numpy()
    goal = read(model, "dog")[1].numpy()
    wanted = {}
    for name, weight in layers(model).items():
        w = weight.numpy()
        inputs = np.concatenate([c @ basis, method.lamb**0.5 * np.eye(basis.shape[1])])
        outputs = np.concatenate([goal @ w.T - c @ w.T, np.zeros((basis.shape[1], len(w)))])
        change = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
        wanted[name] = torch.tensor(w + (basis @ change).T)
    return compare(method.fit(model, BOTH), wanted, model)


def mace(model: Any) -> Difference:
    """Refinement and fusion: with a learning rate of nothing the low-rank changes are none, and fusion adds none."""
    contexts = ("{}", "a {} car")
    method = MACE(
        steps=1, lr=1e-12, pictures=1, draw_steps=2, lamb=1.0, contexts=contexts, preserve_words=2, preserve_scale=0.1
    )
    request = Erasure(("red cat",), anchor="red dog")
    edit = method.fit(model, request)
    pairs = []
    for context in contexts:
        old, new = (context.format(each) for each in ("red cat", "red dog"))
        one, two = (model.tokenizer(text)["input_ids"] for text in (old, new))
        keep = [i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a == b] + list(range(len(one), 8))
        pairs.append((read(model, old)[keep], read(model, new)[keep]))
    held = [read(model, frame.format(word)) for word in edit.meta["notes"]["preserved"] for frame in contexts]
    wanted = {
        name: regress(w, [(c, g @ w.T, 1.0) for c, g in pairs] + [(k, k @ w.T, 0.1) for k in held], 1.0)
        for name, w in layers(model).items()
    }
    return compare(edit, wanted, copy.copy(model))
