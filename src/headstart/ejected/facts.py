"""What a script says of a run, as plain values: which network, which layers learn at which rate, which head, how inputs are prepared."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headstart.activations.engines import sample
from headstart.core import InputError, Net, Preprocess, Source, TextInput
from headstart.export import BODY_FILE, TOKENIZER_FOLDER, Predictor
from headstart.methods import METHODS, SIMPLE, Method, Probe, Scratch, space
from headstart.methods.features.logistic import CS, MAX_ITER
from headstart.methods.features.ridge import ALPHAS, SHARPEST
from headstart.methods.features.stages import RidgeOnStages, Stages
from headstart.methods.model.tuned import Tuned
from headstart.methods.simple import TREES
from headstart.modality.original import Original, cut_modules, hidden_states, original
from headstart.modality.pooling import Pooling
from headstart.result import Arm, Result
from headstart.sources import twin

MODES = frozenset({"1", "L", "RGB", "CMYK", "YCbCr", "LAB", "HSV"})  # that Pillow converts to RGB without a question left
# of Tuned's seams, those that the script has no words for; a method that answers one of them itself is refused
SEAMS = ("loss", "penalties", "scaffold", "body", "learns", "prepare", "multiples", "schedule", "descend", "finish", "build", "heed", "settings", "view")


def facts(result: Result, folder: Path) -> dict[str, Any]:
    """Return what the template asks for. Raises ``InputError`` for a run that cannot be written as a script, see :func:`headstart.ejected.eject`."""
    model = result.model
    arm = result.arm(result.shipped)
    if not isinstance(model, Predictor) or arm is None:
        raise InputError(f"{folder} holds no model. Give the --out folder of a finished run.")
    if not result.labels:
        raise InputError("This run predicts numbers; eject writes runs that predict labels, so far. Use headstart predict, or the folder's model.")
    if model.modality == "tabular":
        raise InputError("This run is about a table; eject writes runs on images and texts, so far. Use headstart predict, or the folder's model.")
    if not result.cases:
        raise InputError(f"{folder} does not say which inputs it trained on (arrays in memory, or a run of an older Headstart). Run transfer on files again.")
    if result.settings:
        given = ",".join(f"{name}={value}" for name, value in result.settings.items())
        raise InputError(f"This run trained with --train {given}, which eject cannot write yet. Use headstart predict, or the folder's model.")
    known = {
        "task": result.task,
        "run": str(folder),
        "score": arm.test.value,
        "n_test": arm.test.n,
        "seed": result.provenance.seed,
        "labels": list(result.labels),
        "modality": model.modality,
        "arm": arm,
        "grouped": any(case.group for case in result.cases),
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
        "alphas": list(ALPHAS),
        "sharpest": SHARPEST,
        "strengths": list(CS),
        "most_steps": MAX_ITER,
        "trees": TREES,
        "inner": min(3, min(sum(c.part == "train" and c.target == label for c in result.cases) for label in result.labels)),
    }
    return known | _modes(result) | _model(arm, model, folder)


def _model(arm: Arm, model: Predictor, folder: Path) -> dict[str, Any]:
    """Return what tells the shipped model: its kind, and the network it stands on."""
    if arm.method == SIMPLE[model.modality].name:
        return {"kind": "simple", "network": None, "params": dict(arm.params), "look": None, "text": None}
    if arm.method not in {Probe.name, Scratch.name, Stages.name} and not isinstance(model.model, Net):
        raise InputError(f"{arm.method!r} is a head that eject cannot write yet. Use headstart predict, or the folder's model.")
    found = original(model.recipe, seed=0)
    if isinstance(model.model, Net):
        shipped = {"kind": "trained", **_trained(arm, model, found)}
    else:
        shipped = {"kind": "frozen", **_frozen(arm, model, found)}
    random = arm.method == Scratch.name
    return shipped | {
        "params": dict(arm.params),
        "network": {"library": found.library, "line": found.line, "classifier": found.classifier, "instead": found.instead, "dim": found.backbone.dim},
        "weights": None if random else f"model/{BODY_FILE}",
        "sha256": None if random else _sha256(folder / "model" / BODY_FILE),
        "random": random,
        "look": _look(model, found, random=random),
        "text": _text(model, found),
    }


def _frozen(arm: Arm, model: Predictor, found: Original) -> dict[str, Any]:
    """Return where the features come from, and what head is on them."""
    if model.source is None:
        raise InputError("This run keeps no source, so eject cannot write it.")
    body, cuts = model.source.backbone, model.view.cuts
    if isinstance(model.model, RidgeOnStages):
        cuts = tuple(cuts[place] for place in sorted(model.model.chosen_))  # the script takes these as given, and fits the ridge anew
    known = {"head": arm.params.get("head", "ridge"), "layers": _layers(found, {}), "hidden": model.modality == "text" and cuts != (len(body.stages),)}
    if model.modality == "text":
        return known | {"places": hidden_states(found, body, cuts, sample(body, 2))}
    return known | {"places": cut_modules(found, body, cuts, sample(body, 2)), "pool": _pool(found)}


def _trained(arm: Arm, model: Predictor, found: Original) -> dict[str, Any]:
    """Return who learns at which rate, and how."""
    method = _method(arm, model)
    stages = list(found.backbone.stages)
    cut = model.view.cuts[0] if model.view.cuts else 0
    steps = [method.rates(len(stages) - cut, step / method.steps) for step in range(method.steps)]
    if any(rates != steps[0] for rates in steps):
        raise InputError(f"{method.name!r} changes its rates while it trains, which eject cannot write yet. Use headstart predict, or the folder's model.")
    rates = dict(zip(stages[cut:], steps[0], strict=False))
    return {
        "layers": _layers(found, {stage: factor * method.rate for stage, factor in rates.items()}),
        "head_rate": steps[0][-1] * method.rate,
        "steps": method.steps,
        "decay": method.weight_decay,
        "betas": (0.9, method.second_moment),
        "epsilon": method.epsilon,
        "frozen_statistics": method.freezes_statistics,
        "smoothing": getattr(method, "smoothing", 0.0),
        "dropout": getattr(method, "dropout", 0.0),
        "from_probe": method.starts_from_probe,
    }


def _method(arm: Arm, model: Predictor) -> Method:
    """Return the method that was shipped, where the script has words for it."""
    kind: Any = METHODS[arm.method][0]
    if kind is Scratch:
        return Scratch(lambda seed: twin(model.recipe, seed=seed), model.view.source or "", model.view.side, **arm.params)
    own = [name for name in SEAMS if getattr(kind, name) is not getattr(Tuned, name)]
    if own:
        hint = "Use headstart predict, or the folder's model."
        raise InputError(f"{arm.method!r} trains in a way of its own ({own[0]}), which eject cannot write yet. {hint}")
    strange = [name for name in arm.params if name not in space(kind)]
    if strange:
        raise InputError(
            f"This run trained with {strange[0]}={arm.params[strange[0]]}, which eject cannot write yet. Use headstart predict, or the folder's model."
        )
    method: Method = kind(**arm.params)
    return method


def _layers(found: Original, rates: dict[str, float]) -> list[tuple[str, str, float]]:
    """Return prefixes of names in the file of weights and in the library's network, and the learning rate there."""
    return [(kept, own, rates.get(stage, 0.0)) for stage, kept, own in found.layers]


def _look(model: Predictor, found: Original, *, random: bool) -> dict[str, Any] | None:
    if model.modality != "image":
        return None
    look = found.backbone.preprocess if model.source is None else model.source.backbone.preprocess
    if random:
        look = Preprocess(size=model.view.side, crop=1.0)
    if not isinstance(look, Preprocess) or look.channels not in {"RGB", "BGR"}:
        raise InputError("This network takes images of other channels than colours, which eject cannot write yet.")
    return {"size": look.size, "resize": look.resize, "mode": look.interpolation, "mean": look.mean, "std": look.std, "flipped": look.channels == "BGR"}


def _text(model: Predictor, found: Original) -> dict[str, Any] | None:
    if model.modality != "text":
        return None
    source: Source | None = model.source
    if source is None or not isinstance(source.backbone.preprocess, TextInput) or not isinstance(found.backbone.pooling, Pooling):
        raise InputError("This run keeps no tokenizer, so eject cannot write it.")
    look = source.backbone.preprocess
    return {
        "folder": f"model/{TOKENIZER_FOLDER}",
        "length": look.max_length,
        "most": min(look.max_length, model.view.side or look.max_length),
        "prefix": look.prefix,
        "pooling": found.backbone.pooling.how,
        "normalise": bool(model.recipe.get("normalise")),
        "padding": int(getattr(source.backbone.tokenizer, "pad_token_id", None) or 0),
    }


def _pool(found: Original) -> str:
    """Return the expression that makes (n, d) of an activation."""
    from headstart.modality.cutting import Positions, Tokens

    pooling = found.backbone.pooling
    if isinstance(pooling, Tokens):
        return "a if a.ndim == 2 else a[:, 0]" if pooling.first else f"a if a.ndim == 2 else a[:, {pooling.prefix}:].mean(1)"
    if isinstance(pooling, Positions):
        return "a.mean((1, 2)) if a.ndim == 4 else a"
    return "a.mean((2, 3)) if a.ndim == 4 else a"


def _modes(result: Result) -> dict[str, bool]:
    """Return which questions the images ask that opening them raises: transparency, and more than 8 bits."""
    said = result.found.facts.get("Modes", "").split("; ")[0]  # behind it: how many were turned by EXIF
    modes = {part.rsplit(" ", 1)[0] for part in said.split(", ") if part}
    deep = {mode for mode in modes if mode.startswith("I") or mode == "F"}
    return {"transparent": bool(modes - MODES - deep), "deep": bool(deep)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
