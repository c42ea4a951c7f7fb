"""What a method is. Looped methods answer three questions: what is trained, who learns when, what is minimised.

Closed-form methods give a scikit-learn estimator on features instead and never enter the loop. Either kind is a frozen dataclass;
its fields are its hyperparameters, and each field made by :func:`knob` carries its own search space.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, Net, Source

Level = Literal["none", "data", "feature", "model", "relation"]
Arm = Literal["baseline", "frozen", "fine-tuned"]
WARMUP = 0.1
# by modality, the policy (see modality.augment) that changes an input as far as its class can be trusted to stay. Why no "flip": nobody asked a label
STRONG = {"image": "crop+rand", "text": "delete+swap+mask", "tabular": "noise+absent"}


@dataclass(frozen=True)
class Knob:
    """The search space of one hyperparameter: either ``choices``, or a range from ``low`` to ``high``."""

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False


def knob(default: Any, *, choices: Sequence[Any] = (), low: float = 0.0, high: float = 0.0, log: bool = False) -> Any:
    """Declare a dataclass field with its default and its search space.

    >>> @dataclass(frozen=True)
    ... class Example:
    ...     rate: float = knob(1e-3, low=1e-4, high=1e-2, log=True)
    >>> Example().rate, space(Example)["rate"].high
    (0.001, 0.01)
    """
    return dataclasses.field(default=default, metadata={"knob": Knob(tuple(choices), low, high, log)})


def space(method: Any) -> dict[str, Knob]:
    """Return the search space that a method's fields declare, by field name."""
    return {f.name: f.metadata["knob"] for f in dataclasses.fields(method) if "knob" in f.metadata}


@dataclass(frozen=True)
class View:
    """Which numbers a method learns from.

    ``kind`` is "pixels" or "handmade" (simple features of the raw image), "items" (the raw texts or rows themselves, as objects), "pooled" (the
    source's activations at the cuts, averaged over positions and laid side by side), "unit" (the same, each cut's divided by their norm in each case),
    "raw" (the source's activations at one cut), "image" (the image itself, ``side`` pixels) or "input" (what the source takes at cut 0: at most ``side``
    token ids (0: all) with their mask, or columns).

    ``copies`` are the policies of augmented copies (see ``modality.augment``) that are looked at beside each input, "pooled" or "raw": the view is then
    (n, 1 + k, ...), an input's own first. The second copy of one policy is drawn anew; copies lie in their input's row, so that no split tears them from it.
    """

    kind: Literal["pixels", "handmade", "items", "pooled", "unit", "raw", "image", "input"]
    source: str | None = None
    cuts: tuple[int, ...] = ()
    side: int = 0
    copies: tuple[str, ...] = ()

    @property
    def plain(self) -> View:
        """The same view without copies."""
        return dataclasses.replace(self, copies=())


class Closed(ABC):
    """A method that is a scikit-learn estimator on features."""

    name: ClassVar[str]
    arm: ClassVar[Arm]
    level: ClassVar[Level]
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = ""
    limits: ClassVar[str] = ""

    @abstractmethod
    def view(self, source: Source | None) -> View:
        """Return which features it learns from."""

    def served(self, source: Source | None) -> View:
        """Return which features it predicts from: those that it learns from, without their copies."""
        return self.view(source).plain

    @abstractmethod
    def estimator(self, *, seed: int) -> Any:
        """Return an unfitted scikit-learn classifier with ``predict_proba``, or a regressor."""


@dataclass(frozen=True)
class Start:
    """A fitted model, the view that it predicts from, and the hash of what it was read from: what is gone on from where its source's cases are not."""

    model: Any
    view: View
    sha256: str


@dataclass(frozen=True)
class Free(ABC):
    """A method that moves a fitted model, ``start``, to unlabelled cases of a target: no case of its source is needed."""

    name: ClassVar[str]
    arm: ClassVar[Arm] = "frozen"
    level: ClassVar[Level] = "relation"
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = ""
    limits: ClassVar[str] = ""
    start: Start = field(repr=False, compare=False)

    def view(self, source: Source | None) -> View:
        """Return which activations of target cases it looks at: those that the model predicts from."""
        return self.start.view

    def served(self, source: Source | None) -> View:
        """Return which activations the moved model predicts from."""
        return self.start.view

    @abstractmethod
    def moved(self, x: Any, *, seed: int, deadline: float) -> Any:
        """Return the model, moved to target cases x (m, ...) of its view; ``deadline`` is a ``time.monotonic``, past which ``OutOfTime`` is raised."""


@dataclass(frozen=True)
class Criterion:
    """How the target's own loss is counted: ``weights`` (c,) of the classes, empty for numbers; ``focus`` is the focal loss's gamma, 0: cross entropy."""

    weights: Tensor
    focus: float = 0.0

    def mass(self, y: Tensor) -> Tensor:
        """Return (n,) how much each case counts, for class codes (n,), shares of classes (n, c), or numbers (n,).

        >>> Criterion(torch.tensor([1.0, 3.0])).mass(torch.tensor([[0.5, 0.5]]))
        tensor([2.])
        """
        if not len(self.weights):
            return torch.ones(len(y), device=y.device)
        return self.weights[y] if y.ndim == 1 else y @ self.weights


class Method(ABC):
    """A method that is trained by the one loop, ``headstart.train.fit``.

    It answers ``build`` (what is trained), ``rates`` (who learns when) and ``loss`` (what is minimised). ``learns``, ``heed``, ``prepare``,
    ``multiples``, ``schedule``, ``descend``, ``survey`` and ``finish`` refine the answers for the few methods that tell tensors of one stage apart, have a
    teacher, look at the data first, have a schedule of their own, go over a whole second domain, or hand over another net than they train; ``settings`` are
    those of training that make the method what it is. ``needs`` names what the source and the task must have, see ``methods.needs``.
    """

    name: ClassVar[str]
    arm: ClassVar[Arm]
    level: ClassVar[Level]
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = ""
    limits: ClassVar[str] = ""
    steps: int
    rate: float
    teacher: tuple[Closed | Method, Source] | None = None  # what is fitted first, on the same cases, so that it can be heeded
    fixed: ClassVar[tuple[str, ...]] = ()  # parts of the net that never learn, by name, such as "head.linear"
    freezes_statistics: ClassVar[bool] = True  # BatchNorm keeps the source's running statistics, also where weights learn
    weight_decay: ClassVar[float] = 0.01  # on matrices and kernels, none on biases and norms; AdamW's own default, which most recipes keep
    second_moment: ClassVar[float] = 0.999  # AdamW's beta2 and epsilon, PyTorch's own defaults
    epsilon: ClassVar[float] = 1e-8

    def suited(self, source: Source) -> Method:
        """Return the method with those of its defaults that another kind of source asks for; as a rule itself."""
        return self

    @abstractmethod
    def view(self, source: Source | None) -> View:
        """Return which activations it learns from."""

    def served(self, source: Source | None) -> View:
        """Return which activations it predicts from: those that it learns from, without their copies."""
        return self.view(source).plain

    def beside(self, source: Source | None) -> View:
        """Return which activations of the second domain it learns from, where there is one: those of the first, each case without copies.

        Where it names copies, every batch also brings one of each case's, made and stored once: in each pass over the domain the next.
        """
        return self.view(source).plain

    @abstractmethod
    def build(self, source: Source, *, features: np.ndarray | None, y: np.ndarray, classes: int, seed: int) -> Net:
        """Return what is trained: a new net that shares no weight with the source.

        ``features`` (n, dim) are the source's final features of the training cases where the method asks for them
        (:attr:`starts_from_probe`), ``y`` (n,) their class codes; where ``classes`` is 0, targets with mean 0 and deviation 1.
        """

    @abstractmethod
    def rates(self, stages: int, progress: float) -> list[float]:
        """Return a multiple of ``rate`` for each of ``stages`` stages and, last, for the head, at ``progress`` 0..1. 0 freezes."""

    @abstractmethod
    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        """Return what is minimised, term by term; ``criterion`` says how the target's own loss is counted, see :func:`target_loss`."""

    def learns(self, module: nn.Module, name: str) -> bool:
        """Whether the tensor ``name`` of that module of the body may learn at all, where its stage does. The head always learns."""
        return True

    def prepare(self, net: Net, batch: Batch, criterion: Criterion) -> None:
        """Look at a few training cases once, before the first step, and fill what the scaffold holds. ``net`` is in evaluation mode."""
        return

    def heed(self, net: Net, said: np.ndarray) -> None:
        """Take in what the teacher says of the training cases, once, before training: probabilities (n, c), or numbers (n, 1) on the targets' scale."""
        return

    def multiples(self, net: Net) -> dict[str, float]:
        """Return a further multiple of ``rate`` for tensors by name; 0 freezes, absent is 1.

        Asked on the first batch of every pass over the cases, when each learning tensor has its gradient.
        """
        return {}

    def schedule(self, step: int, steps: int) -> tuple[float, float]:
        """Return the multiple of every rate at ``step`` 0..steps-1, and AdamW's beta1: linear warm-up over a tenth, then a cosine to 0, and .9."""
        return warm_cosine(step, steps), 0.9

    def descend(self, terms: dict[str, Tensor], net: Net, share: float) -> None:
        """Add to the net's gradients those of the terms of a part of a batch, which counts by ``share``."""
        (share * torch.stack([term.float() for term in terms.values()]).sum()).backward()

    def surveys(self, step: int, steps: int) -> bool:
        """Whether the method goes over the whole second domain before ``step`` 0..steps-1, or, at ``steps``, when training is over."""
        return False

    def survey(self, net: Net, parts: Iterable[Tensor], progress: float) -> None:
        """Go over all cases of the second domain, in order, in ``parts`` (k, ...), and fill what the scaffold or BatchNorm holds of them.

        ``net`` is in evaluation mode, and nothing has a gradient. Before step 0 it is asked for even where a training goes on from a checkpoint.
        """
        return

    def finish(self, net: Net) -> Net:
        """Return the net to serve of the trained one, in evaluation mode: the source's stages and a linear head, as ``export`` saves them."""
        return net

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of training, by name, that are the method's own whatever the run's are (see ``keeping.Settings``)."""
        return {}

    @property
    def starts_from_probe(self) -> bool:
        """Whether ``build`` wants the final features of the training cases."""
        return False


def warm_cosine(step: int, steps: int) -> float:
    """Return 0..1: linear warm-up over a tenth of the steps, then a cosine to 0 (the defaults that fine-tuning recipes agree on).

    >>> [round(warm_cosine(step, 20), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.01]
    """
    warm = max(1, round(WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def target_loss(output: Tensor, y: Tensor, criterion: Criterion, *, smoothing: float = 0.0) -> dict[str, Tensor]:
    """Return the loss of the target itself: cross entropy of logits (n, c) against class codes, or the mean square of (n, 1) against numbers.

    Rows of shares (n, c), such as mixup makes, are targets as well. With ``criterion.focus`` g each term is multiplied by (1 - p)^g, the focal loss
    (Lin et al. 2017, eq. 4). A case counts by the weight of its class, in all that smoothing asks of it: weighed class by class, as PyTorch does it, a common
    class of 19 to 1 would be asked for half of itself and half of the rare one.

    >>> target_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 0.0]), Criterion(torch.ones(0)))
    {'mean square': tensor(5.)}
    """
    if y.is_floating_point() and y.ndim == 1:
        return {"mean square": functional.mse_loss(output[:, 0], y)}
    if y.ndim == 1 and not criterion.focus:
        mass = criterion.mass(y)
        return {"cross entropy": (mass * functional.cross_entropy(output, y, reduction="none", label_smoothing=smoothing)).sum() / mass.sum()}
    classes = output.shape[1]
    shares = functional.one_hot(y, classes).float() if y.ndim == 1 else y
    mass = criterion.mass(shares)
    wanted = (1 - smoothing) * criterion.weights * shares + smoothing / classes * mass[:, None]
    log_p = functional.log_softmax(output, dim=1)
    terms = wanted * log_p * (1 - log_p.exp()) ** criterion.focus
    return {"focal loss" if criterion.focus else "cross entropy": -terms.sum() / mass.sum()}
