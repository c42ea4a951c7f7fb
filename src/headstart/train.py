"""fit(): the only training loop in the project.

It takes a method's three answers (what is trained, who learns when, what is minimised) and activations at a cut. What is frozen is frozen
bit for bit, BatchNorm statistics included; the same seed gives the same weights, bit for bit, on one machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headstart.activations.engines import tune_allocator
from headstart.core import Batch, InputError, Net
from headstart.methods.method import Method

BATCH = 32
WARMUP = 0.1
WEIGHT_DECAY = 0.01
CLIP = 1.0


class OutOfTime(Exception):
    """The deadline passed in the middle of a fit; the fit's work is lost, earlier work is not."""


@dataclass(frozen=True)
class History:
    """The loss of every step, in order."""

    losses: tuple[float, ...]


def fit(
    method: Method,
    net: Net,
    x: np.ndarray,
    y: np.ndarray,
    *,
    seed: int,
    reduced: bool = False,
    deadline: float = math.inf,
    progress: Callable[[float], None] | None = None,
) -> tuple[Net, History]:
    """Train ``net`` in place with AdamW on activations ``x`` (n, ...) and targets ``y`` (n,); return it with its history.

    Integers are class codes, floats are numbers to regress.

    Linear warm-up over a tenth of the steps, then a cosine to 0; gradients clipped to norm 1; weight decay 0.01 on matrices and kernels,
    none on biases and norms (the defaults that fine-tuning recipes agree on). Classes count alike, however many cases each has.

    Parameters
    ----------
    reduced : convolutions and matrix products in bfloat16, weights and their updates in float32, where that is faster (see :func:`gains_from_bfloat16`)
    deadline : a time of ``time.monotonic`` at which training gives up
    progress : called with the share of steps done, 0..1

    Raises
    ------
    OutOfTime
        the deadline passed.
    InputError
        the loss is no longer a number.
    """
    tune_allocator()
    reduced = reduced and gains_from_bfloat16(net)
    generator = torch.Generator().manual_seed(seed)
    numbers = np.asarray(y).dtype.kind == "f"
    classes = torch.ones(0) if numbers else _class_weights(y, net)
    targets = torch.from_numpy(np.asarray(y, dtype=np.float32 if numbers else np.int64))
    losses: list[float] = []
    stages = _stages(net)
    groups = _parameter_groups(stages)
    optimiser = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step, rows in enumerate(_batches(len(y), method.steps, generator)):
            if time.monotonic() > deadline:
                raise OutOfTime
            factors = method.rates(len(stages) - 1, step / method.steps)
            _set_modes(net, stages, factors, method)
            for group in optimiser.param_groups:
                group["lr"] = method.rate * factors[group["stage"]] * _schedule(step, method.steps)
            batch = Batch(_tensor(x, rows), targets[rows])
            with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
                loss = torch.stack([term.float() for term in method.loss(net, batch, classes).values()]).sum()
            losses.append(_finite(float(loss.detach()), step, method))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_((p for p in net.parameters() if p.grad is not None), CLIP)
            optimiser.step()
            if progress is not None:
                progress((step + 1) / method.steps)
    net.requires_grad_(True)
    return net.eval(), History(tuple(losses))


def predict_logits(net: Net, x: np.ndarray, *, batch: int = 64) -> np.ndarray:
    """Return the net's output (n, c), logits or numbers, for activations ``x`` (n, ...), in evaluation mode."""
    net.eval()
    with torch.inference_mode():
        parts = [net(_tensor(x, np.arange(i, min(i + batch, len(x))))) for i in range(0, len(x), batch)]
    return torch.cat(parts).double().numpy()


def gains_from_bfloat16(net: nn.Module) -> bool:
    """Whether the net trains faster in bfloat16 on this processor: it has the instructions, and no convolution runs over groups.

    Measured on two cores with them: dense convolutions 1.7 to 2 times as fast, depthwise ones 1.6 to 2 times as slow. A rule and no clock, so that
    the same machine always trains alike.

    >>> gains_from_bfloat16(nn.Conv2d(4, 4, 3, groups=4))
    False
    """
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(native) and all(m.groups == 1 for m in convolutions)


def _tensor(x: np.ndarray, rows: np.ndarray | Tensor) -> Tensor:
    values = torch.from_numpy(np.ascontiguousarray(x[np.asarray(rows)]))
    values = values.float() if values.is_floating_point() else values  # why: token ids stay whole numbers
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


def _batches(n: int, steps: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffled passes over the rows, cut into full batches, so that BatchNorm never sees a batch of one."""
    size = min(BATCH, n)
    per_pass = n // size
    passes = [torch.randperm(n, generator=generator)[: per_pass * size].split(size) for _ in range(math.ceil(steps / per_pass))]
    return [rows for one in passes for rows in one][:steps]


def _stages(net: Net) -> list[nn.Module]:
    return [*net.body.children(), net.head]


def _parameter_groups(stages: list[nn.Module]) -> list[dict[str, object]]:
    groups: list[dict[str, object]] = []
    for i, stage in enumerate(stages):
        matrices = [p for p in stage.parameters() if p.ndim > 1]
        vectors = [p for p in stage.parameters() if p.ndim <= 1]
        groups += [{"params": ps, "stage": i, "weight_decay": decay} for ps, decay in ((matrices, WEIGHT_DECAY), (vectors, 0.0)) if ps]
    return groups


def _set_modes(net: Net, stages: list[nn.Module], factors: list[float], method: Method) -> None:
    net.train()
    for stage, factor in zip(stages, factors, strict=True):
        stage.requires_grad_(factor > 0)
        if factor == 0:
            stage.eval()  # why: a frozen BatchNorm would still move its running statistics, and the stage would drift without a gradient
    if method.freezes_statistics:
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _schedule(step: int, steps: int) -> float:
    warm = max(1, round(WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _class_weights(y: np.ndarray, net: Net) -> Tensor:
    classes = [m.out_features for m in net.head.modules() if isinstance(m, nn.Linear)][-1]
    counts = np.bincount(np.asarray(y), minlength=classes)
    return torch.from_numpy(len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1))).float()


def _finite(loss: float, step: int, method: Method) -> float:
    if not math.isfinite(loss):
        raise InputError(f"The loss of {method.name!r} became {loss} at step {step + 1}. Lower its rate (now {method.rate:g}).")
    return loss
