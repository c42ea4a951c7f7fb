"""What every trained method must obey, as checks that an outside author runs on their own: ``check_method(method)``.

The laws are those that published code was found to break: frozen BatchNorms that drift, resumed runs that differ, sources that change.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.activations.engines import sample
from headstart.contract import ContractError
from headstart.core import Backbone, Batch, InputError, Net, Preprocess, Source
from headstart.export import assembled
from headstart.keeping import Checkpoint
from headstart.learner import with_params
from headstart.methods.method import Criterion, Knob, Method, space
from headstart.methods.needs import NEEDS, UNLABELLED, require, unmet
from headstart.train import fit, predict_logits

STEPS, STOP = 8, 3  # of a training, and the one after which it is stopped and resumed
CASES, CLASSES = 40, 3
SEED = 7


def check_method(method: Method | type[Method], source: Source | None = None) -> None:
    """Raise unless the method obeys every law, on a source; eight steps are trained three times.

    - The declaration is whole: a frozen dataclass with a name, a paper, limits and known needs, whose defaults lie in their own spaces.
    - Its hyperparameters survive JSON.
    - Where the source or the target lacks what it needs, the documented error says so; nothing further is then checked. One that needs a second domain
      gets one.
    - What its rates and ``learns`` freeze is frozen bit for bit, buffers and BatchNorm statistics included; everything else moves. What it builds for
      training alone, and ``finish`` takes off, is looked at before that.
    - The same seed gives the same bits, whatever the global generator holds, which stays as it was.
    - A training that is stopped and resumed ends with the same bits.
    - The source stays as it was: weights, buffers, modes.
    - No scaffold is left, and what is saved and loaded predicts the same, bit for bit.

    Parameters
    ----------
    method : a class whose fields all have defaults, or an instance
    source : default: :func:`tiny_source`, a convolutional network with BatchNorm and a classifier

    Raises
    ------
    ContractError
        the first law that is broken, in one line.

    Examples
    --------
    >>> from headstart.methods import BSS
    >>> check_method(BSS)
    """
    _declaration(method if isinstance(method, type) else type(method))
    made = method() if isinstance(method, type) else method
    made = dataclasses.replace(made, steps=STEPS)  # type: ignore[type-var]
    world = World.of(made, tiny_source() if source is None else source, classes=CLASSES)
    if _needs_are_asked_for(made, world.source, classes=CLASSES):
        return
    _survives_json(made)
    _loss_is_finite(made, world)
    before, modes = copy.deepcopy(world.source.backbone.state_dict()), [m.training for m in world.source.backbone.modules()]
    kept: list[Checkpoint] = []
    net = _with_random_state_kept(made, lambda: world.trained(made, keep=(1, kept.append)))
    _left_alone(made, world.source.backbone, before, modes)
    _moved_what_learns_and_nothing_else(made, world.built(made), kept[-1].net, net.state_dict())
    _same(made, net, world.trained(made), "the same seed gives other weights")
    _same(made, net, world.trained(made, resume=kept[STOP - 1]), f"a training that is resumed after step {STOP} ends with other weights")
    _is_saved_whole(made, world, net)


def tiny_source() -> Source:
    """Return three convolutions with BatchNorm and a pooling stage, random weights, and the statistics of its inputs.

    >>> tiny_source().stages
    ('stem', 'mid', 'top', 'pool')
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        widths = {"stem": (3, 6), "mid": (6, 8), "top": (8, 10)}
        stages: dict[str, nn.Module] = {n: nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()) for n, (i, o) in widths.items()}
        stages["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        body = Backbone(stages, dim=10, preprocess=Preprocess(size=8, crop=1.0), classifier=nn.Linear(10, 5))
        with torch.no_grad():
            for _ in range(30):  # why: each pass moves statistics by a tenth
                body.train()(torch.randn(32, 3, 8, 8))
    body.eval()
    return Source("tiny", dim=10, stages=tuple(stages), opener=lambda: body, tune_cuts=(0, 1, 2))


@dataclass(frozen=True)
class World:
    """A source and a target of seeded inputs with a planted difference: activations ``x`` where the method starts, final ``features``, codes ``y``."""

    source: Source
    x: np.ndarray
    features: np.ndarray
    y: np.ndarray
    cut: int

    @classmethod
    def of(cls, method: Method, source: Source, *, classes: int) -> World:
        """Return the world of a method on a source."""
        backbone, y = source.backbone, np.arange(CASES) % classes
        given = _inputs(backbone, y)
        cut = (method.view(source).cuts or (0,))[0]
        with torch.no_grad():
            x, features = backbone.below(cut)(given), backbone(given)
        return cls(source, x.numpy(), features.double().numpy(), y, cut)

    def built(self, method: Method) -> Net:
        """Return the net of a method, always the same."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(SEED)
            return method.build(self.source, features=self.features, y=self.y, classes=CLASSES, seed=SEED)

    def trained(self, method: Method, *, resume: Checkpoint | None = None, keep: tuple[int, Callable[[Checkpoint], None]] | None = None) -> Net:
        """Return the net of a method, trained."""
        beside: dict[str, Any] = {"unlabelled": self.unlabelled(method), "copies": self.copies(method)}
        return fit(method, self.built(method), self.x, self.y, seed=SEED, **beside, resume=resume, keep=keep)[0]

    def unlabelled(self, method: Method) -> np.ndarray | None:
        """Return activations of a second domain, not equally many, where the method asks for one."""
        return np.roll(self.x, 1, axis=0)[3:] if UNLABELLED in method.needs else None

    def copies(self, method: Method) -> np.ndarray | None:
        """Return activations (m, k, ...) of copies of that domain's cases, where the method asks for k: weaker and weaker ones."""
        given, k = self.unlabelled(method), len(method.beside(self.source).copies)
        return None if given is None or not k else np.stack([given * (given.dtype.type(1) - given.dtype.type(0.1) * (i + 1)) for i in range(k)], axis=1)


def _inputs(backbone: Backbone, y: np.ndarray) -> Tensor:
    """Made-up inputs at cut 0 whose class shows: in brightness, in a token, in a column."""
    given, codes = sample(backbone, len(y)), torch.from_numpy(y)
    if given.ndim == 3:
        words = int(next(m for m in backbone.modules() if isinstance(m, nn.Embedding)).num_embeddings)
        generator = torch.Generator().manual_seed(SEED)
        ids = torch.randint(0, words, given.shape[:2], generator=generator)
        ids[:, 1] = codes % words
        lengths = torch.randint(2, given.shape[1] + 1, (len(y), 1), generator=generator)
        return torch.stack([ids, (torch.arange(given.shape[1]) < lengths).long()], dim=-1)
    return given + codes.view(-1, *[1] * (given.ndim - 1))


def _declaration(method: type[Method]) -> None:
    called = getattr(method, "name", "") or method.__name__
    for what in ("name", "arm", "level", "paper", "limits"):
        if not getattr(method, what, ""):
            raise ContractError(f"{called}: says no {what}. Give the class one.")
    if not dataclasses.is_dataclass(method) or not method.__dataclass_params__.frozen:
        raise ContractError(f"{called}: is no frozen dataclass, so two runs could share what one changes.")
    if foreign := sorted(method.needs - set(NEEDS)):
        raise ContractError(f"{called}: needs {foreign[0]!r}, which is not known. Say {', '.join(sorted(NEEDS))}, or add it to methods.needs.")
    for name, knob in space(method).items():
        default = next(f.default for f in dataclasses.fields(method) if f.name == name)
        if not _lies_in(default, knob):
            raise ContractError(f"{called}: the default {default!r} of {name} does not lie in its own space ({knob}).")


def _lies_in(value: Any, knob: Knob) -> bool:
    return value in knob.choices if knob.choices else knob.low <= value <= knob.high


def _needs_are_asked_for(method: Method, source: Source, *, classes: int) -> bool:
    """Whether something is missing, and is said."""
    why = unmet(method, source, classes=classes, unlabelled=True)
    if not why:
        return False
    try:
        require(method, source, classes=classes, unlabelled=True)
    except InputError as error:
        if str(error) == why and re.search(r"needs .+; .+\. .+\.", why):
            return True
    raise ContractError(f"{method.name}: a missing need is not said in the documented words.")


def _survives_json(method: Method) -> None:
    plain = {name: getattr(method, name) for name in space(method)}
    again = with_params(method, json.loads(json.dumps(plain)))
    if again != method:
        raise ContractError(f"{method.name}: its hyperparameters {plain} come back from JSON as another method.")


def _moved_what_learns_and_nothing_else(method: Method, before: Net, trained: dict[str, Tensor], served: dict[str, Tensor]) -> None:
    names = [f"body.{name}" for name, _ in before.body.named_children()]
    rates = [method.rates(len(names), step / STEPS) for step in range(STEPS)]
    if any(len(r) != len(names) + 1 or min(r) < 0 for r in rates):
        raise ContractError(f"{method.name}: rates gives {rates[0]} for {len(names)} stages and a head. Give one number, 0 or more, for each.")
    old = before.state_dict()
    for i, part in enumerate([*names, "head"]):
        for name, why in _expected(method, before.get_submodule(part), part, learning=any(r[i] > 0 for r in rates)):
            moved = not torch.equal(old[name], trained[name])
            if why and (moved or not torch.equal(old[name], served.get(name, old[name]))):
                raise ContractError(f"{method.name}: {name} moved, though {why}.")
            if not moved and not why:
                raise ContractError(f"{method.name}: {name} did not move, though its stage learns. Nothing of its loss reaches it.")


def _expected(method: Method, stage: nn.Module, prefix: str, *, learning: bool) -> Iterator[tuple[str, str]]:
    """Each tensor that must or must not move, with why it must not; buffers that a learning stage may move are left out."""
    frozen = "" if learning else "its stage has rate 0"
    for path, module in stage.named_modules(prefix=prefix):
        for name, _ in module.named_parameters(recurse=False):
            allowed = prefix == "head" or method.learns(module, name)
            held = "`fixed` names it" if f"{path}.{name}".startswith(method.fixed) else ""
            yield f"{path}.{name}", frozen or held or ("" if allowed else "`learns` forbids it")
        if frozen or (isinstance(module, nn.modules.batchnorm._BatchNorm) and method.freezes_statistics):
            lasting = [name for name, _ in module.named_buffers(recurse=False) if name not in module._non_persistent_buffers_set]
            yield from ((f"{path}.{name}", frozen or "statistics are frozen") for name in lasting)


def _with_random_state_kept(method: Method, train: Callable[[], Net]) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.rand(5)
        before = torch.get_rng_state()
        net = train()
        if not torch.equal(torch.get_rng_state(), before):
            raise ContractError(f"{method.name}: training moves the caller's random state.")
    return net


def _left_alone(method: Method, backbone: Backbone, before: dict[str, Tensor], modes: list[bool]) -> None:
    moved = [name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])]
    if moved:
        raise ContractError(f"{method.name}: {moved[0]} of the source changed.")
    if modes != [m.training for m in backbone.modules()]:
        raise ContractError(f"{method.name}: the source was left in another mode.")


def _is_saved_whole(method: Method, world: World, net: Net) -> None:
    from safetensors.torch import load, save

    if net.scaffold is not None or net.training:
        raise ContractError(f"{method.name}: the trained net still has its scaffold, or is in training mode.")
    state = load(save({name: value.detach().clone().contiguous() for name, value in net.state_dict().items()}))
    dropout = any(isinstance(m, nn.Dropout) for m in net.head.modules())
    again = assembled(copy.deepcopy(world.source.backbone), method.view(world.source), state, outputs=CLASSES, dropout=dropout)
    if not np.array_equal(predict_logits(net, world.x), predict_logits(again, world.x)):
        raise ContractError(f"{method.name}: what is saved and loaded predicts otherwise.")


def _loss_is_finite(method: Method, world: World) -> None:
    net = world.built(method)
    rows, others = torch.arange(len(world.y)), world.unlabelled(method)
    batch = Batch(torch.from_numpy(world.x), torch.from_numpy(world.y), rows)
    if others is not None:
        given = torch.from_numpy(others)
        copies = world.copies(method)
        look = None if copies is None else torch.from_numpy(copies)[rows % len(given), 0]
        batch = dataclasses.replace(batch, unlabelled=given[rows % len(given)], unlabelled_rows=rows % len(given), copies=look)
        with torch.no_grad():
            method.survey(net.eval(), given.split(10), 0.0)
    method.prepare(net.eval(), batch, Criterion(torch.ones(CLASSES)))
    for name, term in method.loss(net, batch, Criterion(torch.ones(CLASSES))).items():
        if term.ndim or not bool(torch.isfinite(term)):
            raise ContractError(f"{method.name}: the term {name!r} of its loss is {term}; one finite number is wanted.")


def _same(method: Method, one: Net, two: Net, words: str) -> None:
    theirs = two.state_dict()
    other = [name for name, value in one.state_dict().items() if not torch.equal(value, theirs[name])]
    if other:
        raise ContractError(f"{method.name}: {words} ({other[0]}).")
