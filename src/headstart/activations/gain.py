"""Is a cut worth storing? What training above it saves where the stages below it ran once, beside running them again in every epoch.

Counted on a made-up input, not timed, so that the same network is cut alike on every machine and in every run: arithmetic, and the numbers that layers
read and write. On two cores it foretells the measured gains of EfficientNet-Lite0 at five cuts, 1.12 to 5.5, within a tenth.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from headstart.activations.engines import sample
from headstart.core import Backbone, Source

EPOCHS = 10  # of a short fine-tuning
TRAINING = 3.0  # passes' worth of work in a training step: forward, and backward to activations and to weights
LEAST = 1.3  # times as fast, or the disk space and the second pass over files are not worth it
PER_BYTE = 4.0  # operations that cost what a byte costs to move: 165 GFLOP/s beside 36 GB/s, measured on two cores; other processors are not far off
_COUNTED: WeakKeyDictionary[Backbone, tuple[float, ...]] = WeakKeyDictionary()


def gain(source: Source, cut: int, *, epochs: int = EPOCHS) -> float:
    """Return how many times as fast ``epochs`` of training above the cut are when it is stored.

    With t and u the work of the stages below and above: e (t + 3 u) / (t + 3 e u). Whatever is stored, an input's first pass is paid for.

    >>> from headstart.core import ColumnInput
    >>> body = Backbone({"a": nn.Linear(3, 60), "b": nn.Linear(60, 1)}, dim=1, preprocess=ColumnInput(("x", "y", "z")))
    >>> source = Source("s", modality="tabular", stages=("a", "b"), opener=lambda: body)
    >>> round(gain(source, 1), 4)  # t = 360 + 16 * 63, u = 120 + 16 * 61
    1.3595
    """
    work = work_of(source.backbone)
    below, above = sum(work[:cut]), sum(work[cut:])
    return epochs * (below + TRAINING * above) / max(1.0, below + epochs * TRAINING * above)


def stored_cuts(source: Source) -> tuple[int, ...]:
    """Return those of the source's tuning cuts whose activations are kept whole: where training is at least 1.3 times as fast for it.

    Where none is, the one nearest to the output.
    """
    inner = [cut for cut in source.tune_cuts if cut]
    return tuple(cut for cut in inner if gain(source, cut) >= LEAST) or tuple(inner[-1:])


def work_of(backbone: Backbone) -> tuple[float, ...]:
    """Return the operations of each stage for one input, with what moving its numbers costs, counted as operations."""
    if backbone not in _COUNTED:
        counts = []
        with torch.enable_grad():  # why: without, the counter fails where a network hands its own weights to a module (DeBERTa)
            x = sample(backbone, 1)
            for stage in backbone.stages.values():
                x, work = _counted(stage, x.detach())
                counts.append(work)
        _COUNTED[backbone] = tuple(counts)
    return _COUNTED[backbone]


def _counted(stage: nn.Module, x: Tensor) -> tuple[Tensor, float]:
    numbers = 0

    def moved(module: nn.Module, given: tuple[object, ...], out: object) -> None:
        nonlocal numbers
        numbers += sum(t.numel() for t in (*given, out) if isinstance(t, Tensor))

    hooks = [module.register_forward_hook(moved) for module in stage.modules() if not any(True for _ in module.children())]
    try:
        with FlopCounterMode(display=False) as counter:
            out = stage(x)
    finally:
        for hook in hooks:
            hook.remove()
    return out, counter.get_total_flops() + PER_BYTE * 4 * numbers
