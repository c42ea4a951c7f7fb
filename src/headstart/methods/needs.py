"""What a method may need of the source and the task, and what is said where it is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.activations.engines import sample
from headstart.core import InputError, Source
from headstart.methods.method import STRONG, Closed, Method
from headstart.methods.model.adapters import adaptable
from headstart.methods.model.tuned import is_norm

# name: what it is, in words, and whether a source and a task of so many classes (0 for regression) have it
UNLABELLED = "unlabelled target"
NEEDS: dict[str, tuple[str, Callable[[Source, int], bool]]] = {
    "source.classifier": ("a source that comes with its own classifier", lambda source, classes: source.backbone.classifier is not None),
    "batchnorm": ("a source with BatchNorm", lambda source, classes: any(isinstance(m, _BatchNorm) for m in source.backbone.stages.modules())),
    "norms": ("a source with norms", lambda source, classes: any(is_norm(m) for m in source.backbone.stages.modules())),
    "layers": ("a source with linear layers, or convolutions without groups", lambda source, classes: adaptable(source, plain=False)),
    "plain layers": ("a source with PyTorch's own linear layers, or convolutions without groups", lambda source, classes: adaptable(source, plain=True)),
    "source.data": ("cases of a neighbouring domain (--source-data)", lambda source, classes: source.data is not None),
    "source.labels": (
        "labelled cases of a neighbouring domain (--source-data)",
        lambda source, classes: source.data is not None and source.data.y is not None,
    ),
    "maps": ("a source for images whose activations have rows and columns", lambda source, classes: _has_maps(source)),
    "maps or columns": ("a source for images or tables", lambda source, classes: source.modality != "text"),
    "copies": (f"a source whose inputs can be augmented ({', '.join(STRONG)})", lambda source, classes: source.modality in STRONG),
    "images": ("a source for images", lambda source, classes: source.modality == "image"),
    "texts": ("a source for texts", lambda source, classes: source.modality == "text"),
    "tables": ("a source for tables", lambda source, classes: source.modality == "tabular"),
    "classes": ("a target of classes", lambda source, classes: classes > 0),
    "numbers": ("a target of numbers", lambda source, classes: classes == 0),
    UNLABELLED: ("cases of the target beside the labelled ones", lambda source, classes: True),
}
LENT = frozenset({"source.data", "source.labels"})  # cases that a source lends
OTHERWISE = {
    "classes": "the target is numbers",
    "numbers": "the target is classes",
    "source.data": "{name!r} lends none",
    "source.labels": "{name!r} lends none",
}


def _has_maps(source: Source) -> bool:
    """Whether activations at the first tuning cut behind the input are (n, c, h, w), not tokens."""
    if source.modality != "image":
        return False
    cut = next((cut for cut in source.tune_cuts if cut), 0)
    with torch.inference_mode():
        return bool(source.backbone.below(cut)(sample(source.backbone, 1)).ndim == 4)


def unmet(method: Closed | Method | type[Closed | Method], source: Source, *, classes: int, unlabelled: bool = False) -> str:
    """Return what is missing for the method, as a sentence; "" where nothing is. ``unlabelled``: a second domain comes beside the labelled cases.

    >>> from headstart.methods.model.co_tuning import CoTuning
    >>> from headstart.core import Backbone
    >>> unmet(CoTuning, Source("s", opener=lambda: Backbone({}, dim=1)), classes=2)
    "Method 'co-tuning' needs a source that comes with its own classifier; 's' is not one. Choose another method: headstart methods."
    """
    for need in sorted(method.needs, key=lambda need: (need != UNLABELLED, need)):  # why first: no source mends a missing domain
        words, holds = NEEDS[need]
        if need == UNLABELLED and not unlabelled:
            return f"Method {method.name!r} needs {words}; there are none. Move from one domain to another: headstart adapt."
        if not holds(source, classes):
            why = OTHERWISE.get(need, "{name!r} is not one").format(name=source.name)
            return f"Method {method.name!r} needs {words}; {why}. Choose another method: headstart methods."
    return ""


def unlent(methods: Sequence[type[Closed | Method]], sources: Sequence[Source]) -> str:
    """Return which of the methods borrows cases that none of the sources lends, and what to give, as a sentence; "" where none does.

    >>> from headstart.methods.data.borrowed import Borrow
    >>> unlent([Borrow], [Source("s")])
    "Method 'borrow' needs labelled cases of a neighbouring domain, and no source lends any. Give them with --source-data (in Python: hs.lend)."
    """
    for method in methods:
        for need in sorted(method.needs & LENT):
            words, holds = NEEDS[need]
            if not any(holds(source, 0) for source in sources):
                what = words.removesuffix(" (--source-data)")
                tables = any(source.modality == "tabular" for source in sources)
                do = "A table lends none; choose another method: headstart methods." if tables else "Give them with --source-data (in Python: hs.lend)."
                return f"Method {method.name!r} needs {what}, and no source lends any. {do}"
    return ""


def require(method: Closed | Method, source: Source, *, classes: int, unlabelled: bool = False) -> None:
    """Raise ``InputError`` where the method misses what it needs."""
    if why := unmet(method, source, classes=classes, unlabelled=unlabelled):
        raise InputError(why)
