"""What both denoisers learn: v, with min-SNR weights, at stratified noise levels, computed in bfloat16."""

import torch
from torch import Tensor, nn

from . import loop

GAMMA = 5.0


def predict_in_float32(unet: nn.Module, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """The prediction [n, c, h, w] in float32 of a denoiser that computes in bfloat16."""
    with loop.autocast():
        return unet(x_t.contiguous(memory_format=torch.channels_last), t, cond).sample.float()


def v_loss(unet: nn.Module, alphas: Tensor, x_0: Tensor, cond: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The weighted error of v, and the plain one, at x_0 [n, c, h, w] under n conditions; alphas [T] are cumulative."""
    n = len(x_0)
    t = ((torch.arange(n) + torch.rand(())) / n * len(alphas)).long()[torch.randperm(n)]  # stratified
    t = t.clamp(max=len(alphas) - 1).to(x_0.device)  # a random number next to 1 is rounded up to it
    noise = torch.randn(x_0.shape).to(x_0.device)
    a = alphas[t].view(-1, 1, 1, 1)
    x_t, v = a.sqrt() * x_0 + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * x_0
    snr = alphas[t] / (1 - alphas[t])
    error = (predict_in_float32(unet, x_t, t, cond) - v).square().mean(dim=(1, 2, 3))
    return (snr.clamp(max=GAMMA) / (snr + 1) * error).mean() * 2, {"v": error.mean().item()}
