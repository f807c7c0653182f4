"""DINOISER and Difformer written out in a straight line: one sentence at a time, so without padding and masks, from a
checkpoint's weights W and plain torch functions in fp64.  The equations are those in fairseq_diffusion/systems.

A source and a target are token numbers from <s> to </s>; `u` is a uniform number and `eps` [L, D] Gaussian noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Denoiser = Callable[[Tensor, float, Tensor], Tensor]  # x_t [L, D], time, self-condition [L, D] -> x_0-hat [L, D]
HEADS, CLASSES = 2, 32

# -- the Transformer of both, post-norm -------------------------------------------------------------------------------


def linear(W: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, W[f"{name}.weight"], W.get(f"{name}.bias"))


def norm(W: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], W[f"{name}.weight"], W[f"{name}.bias"])


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V for each head; [L, h], [T, h], [T, h] -> [L, h]."""
    heads = []
    for q, k, v in zip(queries.chunk(HEADS, -1), keys.chunk(HEADS, -1), values.chunk(HEADS, -1)):
        heads.append((q @ k.T / math.sqrt(q.shape[-1])).softmax(-1) @ v)
    return torch.cat(heads, -1)


def layer(W: Weights, name: str, h: Tensor, source: Tensor | None, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Attention to itself, attention to the source (in the denoiser), feed-forward; each LayerNorm(h + f(h))."""
    own = attend(*linear(W, f"{name}.self_attention.query_key_value", h).chunk(3, -1))
    h = norm(W, f"{name}.residuals.0.norm", h + linear(W, f"{name}.self_attention.out", own))
    if source is not None:
        query = linear(W, f"{name}.cross_attention.query", h)
        seen = attend(query, *linear(W, f"{name}.cross_attention.key_value", source).chunk(2, -1))
        h = norm(W, f"{name}.residuals.1.norm", h + linear(W, f"{name}.cross_attention.out", seen))
    wide = activation(linear(W, f"{name}.feed_forward.up", h))
    last = "1" if source is None else "2"
    return norm(W, f"{name}.residuals.{last}.norm", h + linear(W, f"{name}.feed_forward.down", wide))


def encode(W: Weights, embedded: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Embedded source [S, h] -> encoder states [S, h]."""
    h = embedded + W["encoder.positions.weight"][: len(embedded)]
    return norm(W, "encoder.norm", layer(W, "encoder.layers.0", h, None, activation))


def decode(W: Weights, h: Tensor, time: Tensor, source: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """The denoiser's layers on its embedded input [L, h]."""
    h = norm(W, "denoiser.norm", h + time + W["denoiser.positions.weight"][: len(h)])
    return layer(W, "denoiser.layers.0", h, source, activation)


def length_nll(logits: Tensor, source: list[int], target: list[int]) -> Tensor:
    """-log p(l), with the difference of the lengths as a class; no difference is the class in the middle."""
    return -logits.log_softmax(-1)[len(target) - len(source) + CLASSES // 2]


def likeliest_length(logits: Tensor, source: list[int]) -> int:
    return len(source) + int(logits.argmax()) - CLASSES // 2


def nll(x: Tensor, table: Tensor, target: list[int], smoothing: float = 0.0) -> Tensor:
    """-log softmax(x E^T)[y] at each position, [L]; smoothed with the mean over all words."""
    log_p = (x @ table.T).log_softmax(-1)
    return -(1 - smoothing) * log_p[range(len(target)), target] - smoothing * log_p.mean(-1)


# -- DINOISER ---------------------------------------------------------------------------------------------------------


def dinoiser_table(W: Weights) -> Tensor:
    """Rows of norm sqrt(D)."""
    E = W["state.weight"]
    return math.sqrt(E.shape[1]) * E / E.norm(dim=-1, keepdim=True)


def dinoiser_source(W: Weights, source: list[int]) -> tuple[Tensor, Tensor]:
    """Encoder states [S, h], and the length's logits of their mean."""
    states = encode(W, W["encoder.embedding.weight"][source], F.gelu)
    return states, linear(W, "length.map.2", linear(W, "length.map.0", states.mean(0)).tanh())


def dinoiser_denoiser(W: Weights, states: Tensor) -> Denoiser:
    """[x_t ; c] through a tanh, plus random Fourier features of the time through a SiLU; out through a tanh."""

    def z(x_t: Tensor, t: float, c: Tensor) -> Tensor:
        angle = 2 * math.pi * t * W["denoiser.time.frequencies.W"]
        features = torch.cat([angle.sin(), angle.cos()])
        time = linear(W, "denoiser.time.map.2", F.silu(linear(W, "denoiser.time.map.0", features)))
        h = linear(W, "denoiser.enter.2", linear(W, "denoiser.enter.0", torch.cat([x_t, c], -1)).tanh())
        h = decode(W, h, time, states, F.gelu)
        return linear(W, "denoiser.leave.2", linear(W, "denoiser.leave.0", h).tanh())

    return z


def clipping(W: Weights) -> float:
    """sigma_min = sqrt(delta^2 / (1 + delta^2)), delta^2 the mean square of the distance to the nearest row."""
    E = dinoiser_table(W)
    distance = (E[:, None] - E[None]).square().sum(-1).fill_diagonal_(math.inf)
    delta_2 = float(distance.min(-1).values.sum() / E.numel())
    return math.sqrt(delta_2 / (1 + delta_2))


def dinoiser_loss(
    W: Weights, source: list[int], target: list[int], u: float, eps: Tensor, sigma_min: float
) -> dict[str, Tensor]:
    """The loss of a sentence by its terms; a batch's is the mean over sentences of mse + rounding + 0.1 length."""
    E = dinoiser_table(W)
    x_0 = E[target]
    sigma = sigma_min + (1 - sigma_min) * u
    x_t = math.sqrt(1 - sigma**2) * x_0 + sigma * eps
    states, length_logits = dinoiser_source(W, source)
    z = dinoiser_denoiser(W, states)
    first = z(x_t, sigma, torch.zeros_like(x_t))
    second = z(x_t, sigma, first.detach())
    return {
        "mse": ((first - x_0).square().mean() + (second - x_0).square().mean()) / 2,
        "rounding": nll(x_0, E, target).mean(),
        "length": length_nll(length_logits, source, target),
    }


def cedi(W: Weights, source: list[int], noise: Callable[[int, int, int], Tensor], steps: int) -> list[Tensor]:
    """x_0-hat [L, D] at each of the steps; `noise` (draw, L, D) gives Gaussian noise."""
    states, length_logits = dinoiser_source(W, source)
    z = dinoiser_denoiser(W, states)
    x = noise(0, likeliest_length(length_logits, source), W["state.weight"].shape[1])
    t, tau = torch.linspace(1, 0.001, steps + 1).double(), torch.linspace(1, 0.99, steps + 1).double()
    c, estimates = torch.zeros_like(x), []
    for i in range(steps):
        c = z(x, float(tau[i]), c)
        estimates.append(c)
        alpha = (1 - tau[i] ** 2).sqrt()
        x = (1 - t[i + 1] ** 2).sqrt() * c + t[i + 1] * (x - alpha * c) / tau[i]
    return estimates


# -- Difformer --------------------------------------------------------------------------------------------------------


def abar_table(T: int = 2000) -> Tensor:
    """abar_i, [T], of the square root."""
    s = torch.arange(T + 1, dtype=torch.float64) / T
    abar = 1 - (s + 1e-4).sqrt()
    abar[-1] = 0.0  # not below it: all is noise
    beta = (1 - abar[1:] / abar[:-1]).clamp(max=0.999)
    return (1 - beta).cumprod(0)


def difformer_source(W: Weights, source: list[int]) -> tuple[Tensor, Tensor]:
    x_0 = math.sqrt(W["state.weight"].shape[1]) * W["state.weight"][source]
    states = encode(W, linear(W, "encoder.embedding.project", x_0), F.relu)
    return states, linear(W, "length.map", states.mean(0))


def difformer_denoiser(W: Weights, states: Tensor) -> Denoiser:
    """FFN([W x_t ; W c]) plus sinusoids of the time, which is the step as a share of all, through a SiLU."""

    def z(x_t: Tensor, t: float, c: Tensor) -> Tensor:
        half = W["denoiser.positions.weight"].shape[1] // 2
        angle = 1000 * t * 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        features = torch.cat([angle.cos(), angle.sin()])
        time = linear(W, "denoiser.time.map.2", F.silu(linear(W, "denoiser.time.map.0", features)))
        both = torch.cat([linear(W, "denoiser.enter.project", x) for x in (x_t, c)], -1)
        h = linear(W, "denoiser.enter.merge.3", linear(W, "denoiser.enter.merge.0", both).relu())
        return linear(W, "denoiser.leave", decode(W, h, time, states, F.relu))

    return z


def difformer_loss(
    W: Weights, source: list[int], target: list[int], u: float, eps: Tensor, factor: float, conditioned: bool
) -> dict[str, Tensor]:
    """The loss of a sentence by its terms, a sum over its tokens; a batch's is the mean over tokens of mse + anchor +
    0.1 length.  `conditioned`: this update has a second pass."""
    E, abar = W["state.weight"], abar_table()
    x_0 = math.sqrt(E.shape[1]) * E[target]
    i = math.ceil(u * len(abar)) - 1
    t = (i + 1) / len(abar)
    x_t = abar[i].sqrt() * x_0 + factor * (1 - abar[i]).sqrt() * eps
    states, length_logits = difformer_source(W, source)
    z = difformer_denoiser(W, states)
    c = torch.zeros_like(x_t)
    if conditioned:
        c = z(x_t, t, c).detach()
    estimate = z(x_t, t, c)
    return {
        "mse": (estimate - x_0).square().mean(-1).sum(),
        "anchor": nll(estimate, E, target, smoothing=0.1).sum(),
        "length": length_nll(length_logits, source, target) * len(target),
    }


def respaced_ddpm(
    W: Weights, source: list[int], noise: Callable[[int, int, int], Tensor], steps: int, left_out: int
) -> list[Tensor]:
    """x_0-hat [L, D] at each step taken: `steps` of the T steps, but for the `left_out` least noisy ones."""
    states, length_logits = difformer_source(W, source)
    z = difformer_denoiser(W, states)
    table = abar_table()
    T = len(table)
    kept = torch.linspace(T, 1, steps, dtype=torch.float64).round().long()[: steps - left_out + 1]  # counted from 1
    abar = table[kept - 1]
    L, D = likeliest_length(length_logits, source), W["state.weight"].shape[1]
    x = (1 - abar[0]).sqrt() * noise(0, L, D)
    c, estimates = torch.zeros_like(x), []
    for k in range(steps - left_out):
        c = z(x, float(kept[k]) / T, c)
        estimates.append(c)
        before = abar[k + 1]  # less noise: the step that DDPM calls k - 1
        beta = 1 - abar[k] / before
        mean = (before.sqrt() * beta * c + (1 - beta).sqrt() * (1 - before) * x) / (1 - abar[k])
        x = mean + (beta * (1 - before) / (1 - abar[k])).sqrt() * noise(k + 1, L, D)
    return estimates
