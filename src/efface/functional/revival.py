"""Guesses pruned weights from their places and from the weights that stayed.

Zhang et al., CVPR 2026, arXiv 2603.06640: signs matter more than magnitudes. A low-rank completion of the matrix
(SoftImpute, Mazumder et al. 2010) gives the signs, the weights with the largest completed magnitudes are trusted, and
each trusted weight gets the largest magnitude that is left in its neuron, which is its row.

`mirror` is ours, for masks that were learned: see there.
"""

from __future__ import annotations

import torch
from torch import Tensor


def complete(matrix: Tensor, missing: Tensor, rounds: int = 500, tolerance: float = 1e-5) -> Tensor:
    """Fills the `missing` entries (bool [m, n]) of a matrix [m, n] by SoftImpute, in fp64.

    Starting from the means of the columns, each round lowers the singular values by the smallest one and restores the
    known entries, until the matrix changes by less than `tolerance` of its norm, or for `rounds` rounds. A column
    without a known entry starts at 0.
    """
    known = ~missing
    x = torch.where(known, matrix.double(), torch.zeros((), dtype=torch.double, device=matrix.device))
    means = x.sum(dim=0) / known.sum(dim=0).clamp(min=1)
    filled = torch.where(known, x, means)
    for _ in range(rounds):
        u, s, vh = torch.linalg.svd(filled, full_matrices=False)
        lower = (u * (s - s[-1])) @ vh
        new = torch.where(known, x, lower)
        change = (new - filled).norm() / filled.norm().clamp(min=1e-12)
        filled = new
        if change < tolerance:
            break
    return filled


def mirror(matrix: Tensor, missing: Tensor) -> Tensor:
    """Guesses the missing entries (bool [m, n]) of a matrix [m, n] with a learned mask, up to scale; in fp64.

    A mask m learned by gradients drops w_ij where d loss / d m_ij = w_ij g_ij is large. g, the gradient of a layer's
    weight, has nearly rank one, u v', where one concept is erased. So the dropped weights had the sign of u_i v_j, and
    of the large weights in the same rows and columns those of the other sign stayed. The guess is therefore the first
    singular pair of minus the weights that stayed, each times sqrt(r_i c_j), the shares that its row and column lost.
    """
    gone = missing.double()
    lost = (gone.mean(dim=1, keepdim=True) * gone.mean(dim=0)).sqrt()
    stayed = torch.where(missing, torch.zeros_like(gone), -matrix.double())
    u, s, vh = torch.linalg.svd(stayed * lost, full_matrices=False)
    return s[0] * u[:, :1] @ vh[:1]


def find_trusted(guess: Tensor, missing: Tensor, share: float) -> Tensor:
    """The missing entries (bool [m, n]) to trust: the `share` of them, at least one, with the largest guesses."""
    if not 0 < share <= 1:
        raise ValueError(f"a share of signs is above 0 and at most 1, got {share}")
    places = missing.flatten().nonzero().squeeze(1)
    order = torch.argsort(guess.abs().flatten()[places], descending=True, stable=True)
    kept = torch.zeros(missing.numel(), dtype=torch.bool, device=missing.device)
    kept[places[order[: max(1, round(share * len(places)))]]] = True
    return kept.view(missing.shape) & missing


def restore(matrix: Tensor, guess: Tensor, places: Tensor, quantile: float = 1.0) -> Tensor:
    """Sets entries of the matrix [m, n] at `places` (bool [m, n]) to the guess's sign and a magnitude from its row.

    Args:
        matrix: the pruned matrix [m, n].
        guess: the guess [m, n], of which only signs count.
        places: the entries to set.
        quantile: the quantile of the row's magnitudes other than 0; 1, the paper's, is the largest. An empty row gets
            0.
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"a quantile lies between 0 and 1, got {quantile}")
    sizes = matrix.abs().double()
    sizes = torch.where(sizes > 0, sizes, torch.nan).nanquantile(quantile, dim=1, keepdim=True).nan_to_num(0)
    return torch.where(places, guess.sign().to(matrix) * sizes.to(matrix), matrix)


def find_scars(weight: Tensor, least: float) -> Tensor:
    """Finds where numbers were taken out of a weight [m, n]: bool [m, n], all False where nothing shows it.

    These are zeros, if they are at least a share `least` and at least two, because single zeros come from rounding.
    Otherwise they are numbers that a narrower dtype holds exactly among others that it does not: noise that was stored
    in fp16 and put into fp32 weights. An fp32 number has that form by chance once in 8,192, so at least eight times as
    many, and at least eight, are needed.
    """
    zero = weight == 0
    if int(zero.sum()) >= max(2, least * weight.numel()):
        return zero
    narrow = weight.half().to(weight.dtype) == weight
    share = float(narrow.double().mean())
    patched = weight.dtype == torch.float32 and max(least, 2**-10) <= share < 0.5 and int(narrow.sum()) >= 8
    return narrow if patched else torch.zeros_like(zero)
