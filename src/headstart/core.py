"""Things: domains, tasks, sources, and backbones as ordered chains of named stages.

A *cut* is a position in that chain: cut 0 is the raw input, cut k lies behind the k-th stage. Freezing, caching, fine-tuning
and layer transfer all count in cuts.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, inference_mode, nn

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
UNLABELLED = ("_", "unlabelled")  # folders of a target domain whose images have no label
MIN_PER_CLASS = 4  # one is held out for the test, and the folds of the rest need two or more


class InputError(ValueError):
    """What the user gave cannot be used. One line: what came, what was expected, what to do now."""


@dataclass(frozen=True)
class Domain:
    """Samples drawn from one distribution.

    Parameters
    ----------
    x : sequence of n raw inputs (paths of images, or arrays of shape (h, w, c))
    y : sequence of n targets, or ``None`` where no labels exist; never a sentinel
    groups : (n,) labels of what must not be split over folds (a patient, a site), or ``None``

    >>> len(Domain("two", ["a.png", "b.png"], ["cat", "dog"]))
    2
    """

    name: str
    x: Sequence[Any]
    y: Sequence[Any] | None = None
    groups: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        for what, values in (("targets", self.y), ("groups", self.groups)):
            if values is not None and len(values) != len(self.x):
                raise InputError(f"Domain {self.name!r} has {len(self.x)} inputs but {len(values)} {what}. Give one for each input.")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Sequence[int]) -> Domain:
        """Return the domain of those rows, in that order."""
        pick = [int(i) for i in rows]
        y, groups = (None if given is None else [given[i] for i in pick] for given in (self.y, self.groups))
        return Domain(self.name, [self.x[i] for i in pick], y, groups)


@dataclass(frozen=True)
class Task:
    """What we want to be good at.

    ``labels`` is empty for regression, where targets are numbers. ``columns`` tells which column of a file is what, such as
    {"text": "body", "target": "label"}.
    """

    kind: Literal["classification", "multilabel", "regression", "detection", "segmentation"]
    modality: Literal["image", "text", "tabular"]
    target: Domain
    labels: tuple[str, ...] = ()
    unlabelled: Domain | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: str | Path, *, group_by: str | None = None) -> Task:
        r"""Return the classification task of a folder that holds one folder of images per class.

        Files are listed, not opened. Hidden files and files that are no images are left out; folders inside a class are walked.

        Parameters
        ----------
        folder : path; its sub-folders' names are the labels, in sorted order
        group_by : regular expression; images whose path under ``folder`` matches it with the same text (the first group
            where it has one) are never on both sides of a split, such as ``r"(patient\d+)"``. ``None``: no groups.

        Raises
        ------
        InputError
            no such folder; no images; one class; a class with one image; a path that ``group_by`` does not match.
        """
        root = Path(folder)
        if not root.is_dir():
            raise InputError(f"{root} is not a folder. Give a folder that holds one folder of images per class.")
        classes = {d.name: _images_under(d) for d in sorted(root.iterdir()) if d.is_dir() and not d.name.startswith(".")}
        empty = [name for name, paths in classes.items() if not paths]
        classes = {name: paths for name, paths in classes.items() if paths}
        _check_classes(root, classes, empty)
        x = [p for paths in classes.values() for p in paths]
        y = [name for name, paths in classes.items() for _ in paths]
        groups = None if group_by is None else _groups(root, x, group_by)
        return cls("classification", "image", Domain(root.name or str(root.resolve()), x, y, groups), tuple(classes))

    @classmethod
    def unlabelled_from_folder(cls, folder: str | Path) -> Task:
        """Return a task without targets of all images under a folder, at any depth: what ``assess`` can compare and describe.

        Raises
        ------
        InputError
            no such folder, or no images in it.
        """
        root = Path(folder)
        if not root.is_dir():
            raise InputError(f"{root} is not a folder. Give a folder of images.")
        paths = _images_under(root)
        if not paths:
            raise InputError(f"{root} holds no images. Give a folder of images.")
        return cls("classification", "image", Domain(root.name or str(root.resolve()), paths))

    @classmethod
    def target_from_folder(cls, folder: str | Path, *, group_by: str | None = None) -> Task:
        r"""Return the task of a domain to adapt to: all images under a folder, at any depth, with labels as far as there are class folders.

        An image's label is the name of the folder directly under ``folder`` that it lies in. Images that lie loose in ``folder``, or in a folder ``_`` or
        ``unlabelled``, have none. Whether labels are looked at is for :func:`headstart.adapt` to say.

        Raises
        ------
        InputError
            no such folder; no images in it; a path that ``group_by`` does not match.
        """
        task, root = cls.unlabelled_from_folder(folder), Path(folder)
        tops = [Path(path).relative_to(root).parts for path in task.target.x]
        y = [None if len(parts) == 1 or parts[0] in UNLABELLED else parts[0] for parts in tops]
        groups = None if group_by is None else _groups(root, task.target.x, group_by)
        return replace(task, target=Domain(task.target.name, task.target.x, y if any(label is not None for label in y) else None, groups))

    @property
    def codes(self) -> list[int]:
        """(n,) index into ``labels`` of each target."""
        index = {label: i for i, label in enumerate(self.labels)}
        return [index[str(label)] for label in self.target.y or ()]


@dataclass(frozen=True)
class Inspection:
    """What reading every input found; ``digests`` are in the order of the task that came back, ``facts`` in words, for people."""

    digests: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a backbone's input, as its weights were trained: resize the shorter side, crop the centre, normalise.

    ``size`` is the side of the square input in pixels; the shorter side is first resized to ``int(size / crop)``.
    ``mean`` and ``std`` are per channel on a 0..1 scale, in the order of ``channels``: colours, "L" (grey) or "RGBA" (alpha last, 1 where opaque).
    """

    size: int = 224
    crop: float = 0.875
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: Literal["RGB", "BGR", "L", "RGBA"] = "RGB"

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Preprocess:
        """Return what plain values, as JSON gives them, describe."""
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
        return cls(**values)

    @property
    def resize(self) -> int:
        """Pixels of the shorter side before the crop."""
        return int(self.size / self.crop + 1e-6)  # why: 224 / (224 / 232) is a hair under 232

    def with_channels(self, channels: int) -> Preprocess:
        """Return the same for 1 (grey) or 4 (with alpha) channels: mean and deviation of a new channel are the average of the colours'.

        >>> Preprocess(mean=(0.0, 0.5, 1.0)).with_channels(1).mean
        (0.5,)
        """
        if channels == 3:
            return self
        if channels not in (1, 4):
            raise InputError(f"Images of {channels} channels cannot be read; 1 (grey), 3 (colour) and 4 (colour and alpha) can.")
        mean, std, grey = sum(self.mean) / 3, sum(self.std) / 3, channels == 1
        return replace(self, mean=(mean,) if grey else (*self.mean, mean), std=(std,) if grey else (*self.std, std), channels="L" if grey else "RGBA")


@dataclass(frozen=True)
class TextInput:
    """How a text becomes a backbone's input: tokenised as its weights were trained, cut off behind ``max_length`` tokens.

    ``prefix`` is put before every text (some sentence encoders want "query: "); ``tokenizer_sha256`` tells one tokenizer from another.
    """

    max_length: int = 128
    prefix: str = ""
    tokenizer_sha256: str = ""


@dataclass(frozen=True)
class ColumnInput:
    """Which columns a backbone for tables takes, in order, and how they were encoded (as JSON text)."""

    columns: tuple[str, ...] = ()
    encoding: str = ""


class Backbone(nn.Module):
    """A pretrained body as an ordered chain of named stages; the last stage ends in a (n, dim) feature.

    One tensor runs through the chain. Images: (n, c, h, w) or, in transformers, (n, tokens, d). Text: tokens with their attention mask
    as one more channel, so that whatever is stored at a cut is whole: (n, t, 2) token ids and mask at the input, (n, t, d + 1) inside.
    ``pooling`` makes (n, d) of an activation at a cut; by default it is the mean over positions. ``tokenizer`` belongs to the weights. ``loaded`` is
    the account of how well weights from a file fitted, where they were matched by name; ``recipe`` is what ``Source.recipe`` takes over.

    >>> import torch
    >>> body = Backbone({"stem": nn.Linear(3, 4), "head": nn.Linear(4, 2)}, dim=2)
    >>> x = torch.ones(5, 3)
    >>> torch.equal(body.above(1)(body.below(1)(x)), body(x))
    True
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        *,
        dim: int,
        preprocess: Preprocess | TextInput | ColumnInput | None = None,
        classifier: nn.Module | None = None,
        tokenizer: Any = None,
        pooling: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.dim = dim
        self.preprocess = preprocess or Preprocess()
        self.classifier = classifier
        self.tokenizer = tokenizer
        self.pooling = pooling or mean_over_positions
        self.loaded: Any = None
        self.recipe: dict[str, Any] = {}

    @property
    def cuts(self) -> tuple[str, ...]:
        """Names of the cuts: ``cuts[k]`` is the stage that ends at cut k, and ``cuts[0]`` is "input"."""
        return ("input", *self.stages)

    def below(self, cut: int) -> nn.Sequential:
        """Return the stages that come before the cut; they share weights with this backbone."""
        return self.between(0, cut)

    def above(self, cut: int) -> nn.Sequential:
        """Return the stages that come after the cut; they share weights with this backbone."""
        return self.between(cut, len(self.stages))

    def between(self, low: int, high: int) -> nn.Sequential:
        """Return the stages after cut ``low`` and before cut ``high``, by name."""
        if not 0 <= low <= high <= len(self.stages):
            raise InputError(f"Cuts {low} to {high} do not lie in a chain of {len(self.stages)} stages. Cuts are {self.cuts}.")
        return nn.Sequential(OrderedDict(list(self.stages.items())[low:high]))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages.values():
            x = stage(x)
        return x


def mean_over_positions(activation: Tensor) -> Tensor:
    """Return (n, d): the mean over positions of (n, d, h, w) or of (n, tokens, d); (n, d) as it is."""
    if activation.ndim == 4:
        return activation.mean(dim=(2, 3))
    return activation.mean(dim=1) if activation.ndim == 3 else activation


class Net(nn.Module):
    """What is trained and served: the stages above a cut, and a head. Input: activations at that cut; output: (n, c) logits.

    ``scaffold`` is what only training needs: a frozen copy of the source, its old classifier. ``train.fit`` takes it down when it is done.
    """

    def __init__(self, body: nn.Sequential, head: nn.Module, scaffold: nn.ModuleDict | None = None) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.scaffold = scaffold

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


@dataclass(frozen=True)
class Batch:
    """Activations ``x`` (n, ...) and class codes ``y`` (n,), shares of classes (n, c) or numbers (n,); ``rows`` (n,) are their places among the cases.

    Of two domains, ``unlabelled`` (n, ...) are cases of the one without labels, at its ``unlabelled_rows``, and ``copies`` (n, ...) an augmented copy of each,
    for a method that asks. ``progress`` is the share of the training's steps that are done, 0..1.
    """

    x: Tensor
    y: Tensor
    rows: Tensor | None = None
    unlabelled: Tensor | None = None
    unlabelled_rows: Tensor | None = None
    progress: float = 0.0
    copies: Tensor | None = None

    def take(self, rows: Tensor) -> Batch:
        """Return the batch of those of its cases, and of as many unlabelled ones."""
        return replace(self, **{name: given[rows] for name, given in vars(self).items() if isinstance(given, Tensor)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Source:
    """Where knowledge may come from: a model, a dataset, or both. Listing one is cheap; ``backbone`` loads on first use.

    ``data`` are cases that it lends, of a task's own labels (codes, or numbers) or without any; ``data_sha256`` is their hash, see :func:`headstart.lend`.
    ``recipe`` is what builds its architecture without its weights, as plain values for JSON: a saved model needs no package that held weights.
    ``tune_cuts`` are the cuts that fine-tuning may start from, ``labels`` the names of the classes that its classifier knows; the last ``tail`` stages do
    nothing but pool what comes before. One that is ``by_name`` is tried only where it is named, not merely because it is there.
    """

    name: str
    family: str = ""
    parameters: int = 0
    dim: int = 0
    stages: tuple[str, ...] = ()
    trained_on: str = ""
    licence: str = ""
    origin: str = ""
    modality: Literal["image", "text", "tabular"] = "image"
    tune_cuts: tuple[int, ...] = ()
    opener: Callable[[], Backbone] | None = field(default=None, repr=False, compare=False)
    digest: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    data: Domain | None = None
    data_sha256: str = ""
    labels: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict, compare=False)
    by_name: bool = False
    tail: int = 0

    @property
    def levels(self) -> tuple[int, ...]:
        """The cuts whose pooled activations each say something of their own, the last among them: a tail that merely pools says what is before it."""
        return (*range(1, len(self.stages) - self.tail), len(self.stages))

    @cached_property
    def backbone(self) -> Backbone:
        """The pretrained backbone, in evaluation mode, loaded once."""
        if self.opener is None:
            raise InputError(f"Source {self.name!r} holds no model. Choose a source with one: headstart sources.")
        return inference_mode(False)(self.opener)().eval()  # why: weights made in inference mode could never be trained

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the file that the weights come from."""
        return self.digest() if self.digest is not None else ""


def _images_under(folder: Path) -> list[str]:
    paths = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    return [str(p) for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def _check_classes(root: Path, classes: Mapping[str, list[str]], empty: Sequence[str]) -> None:
    if not classes:
        loose = sum(p.suffix.lower() in IMAGE_SUFFIXES for p in root.iterdir())
        found = f"{loose} images lie in it directly" if loose else "it holds no images"
        raise InputError(f"{root} has no class folders with images ({found}). Put the images of each class into a folder of its own.")
    if len(classes) < 2:
        raise InputError(f"{root} holds one class, {next(iter(classes))!r}; at least 2 are needed. Add a folder for each other class.")
    if empty:
        raise InputError(f"{root / empty[0]} holds no images. Add images of class {empty[0]!r}, or remove the folder.")
    for name, paths in classes.items():
        if len(paths) < MIN_PER_CLASS:
            raise InputError(f"Class {name!r} has only {len(paths)} ({paths[0]}); at least {MIN_PER_CLASS} are needed. Add images, or remove the folder.")


def _groups(root: Path, paths: Sequence[str], pattern: str) -> list[str]:
    try:
        find = re.compile(pattern)
    except re.error as error:
        raise InputError(f"group_by is not a regular expression: {pattern!r} ({error}). Example: '(patient\\d+)'.") from None
    groups = []
    for path in paths:
        name = Path(path).relative_to(root).as_posix()
        match = find.search(name)
        if match is None:
            raise InputError(f"group_by {pattern!r} does not match {name}. Every image needs a group; widen the expression.")
        groups.append(match.group(1) if find.groups else match.group(0))
    return groups
