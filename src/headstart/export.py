"""Save and load: a folder with weights in safetensors, heads in skops, and JSON. No pickle is written or read.

The folder is whole: it predicts on a machine that has none of the packages the weights came from.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from headstart.activations.store import Store, default_root
from headstart.core import Backbone, InputError, Net, Source
from headstart.evaluate import scale
from headstart.learner import Fitted, probabilities
from headstart.methods import Scratch
from headstart.methods.features import HEADS
from headstart.methods.method import View
from headstart.modality.image import digest
from headstart.modality.vision import random_twin
from headstart.result import RESULT_FILE, TIMES_FILE, Prediction, Result
from headstart.sources import entry
from headstart.views import Views

MODEL_FILE, HEAD_FILE, NET_FILE, BODY_FILE = "model.json", "head.skops", "net.safetensors", "backbone.safetensors"


@dataclass(frozen=True)
class Predictor:
    """A fitted model with what it needs to see raw images: its view, its source's frozen stages, its labels and its temperature.

    ``architecture`` names the source whose stages the net is made of, also where its weights began at random.
    """

    labels: tuple[str, ...]
    model: Any
    view: View
    source: Source | None
    architecture: str
    temperature: float

    @classmethod
    def of(cls, fitted: Fitted, labels: Sequence[str], *, temperature: float) -> Predictor:
        """Return the predictor of a fitted candidate."""
        candidate = fitted.candidate
        twin = candidate.method.twin.source.name if isinstance(candidate.method, Scratch) else ""  # type: ignore[attr-defined]
        source = None if candidate.source is None else _lean(candidate.source, candidate.view)
        return cls(tuple(labels), fitted.model, candidate.view, source, source.name if source else twin, temperature)

    def proba(self, inputs: Sequence[Any]) -> np.ndarray:
        """Return calibrated probabilities (n, c) of images: paths, or arrays of shape (h, w, c)."""
        if not len(inputs):
            return np.zeros((0, len(self.labels)))
        table = {} if self.source is None else {self.source.name: self.source}
        views = Views(list(inputs), [digest(item) for item in inputs], table, Store(default_root()))
        return scale(probabilities(self.model, views.array(self.view), classes=len(self.labels)), self.temperature)

    def predict(self, inputs: Sequence[Any]) -> list[Prediction]:
        """Predict each image's label with its calibrated probability."""
        return [
            Prediction(self.labels[int(p.argmax())], float(p.max()), tuple(float(v) for v in p), str(item) if isinstance(item, str | Path) else "")
            for item, p in zip(inputs, self.proba(inputs), strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the model into ``folder``."""
        import skops.io
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        plain = {
            "labels": self.labels,
            "view": dataclasses.asdict(self.view),
            "architecture": self.architecture,
            "weights_sha256": "" if self.source is None else self.source.weights_sha256,
            "temperature": self.temperature,
            "net": isinstance(self.model, Net),
        }
        (folder / MODEL_FILE).write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if isinstance(self.model, Net):
            save_file(_contiguous(self.model), folder / NET_FILE)
        else:
            skops.io.dump(self.model, folder / HEAD_FILE)
        if self.source is not None:
            save_file(_contiguous(self.source.backbone), folder / BODY_FILE)

    @classmethod
    def load(cls, folder: Path) -> Predictor:
        """Read what :meth:`save` wrote. Raises ``InputError`` when the folder holds no model or a foreign one."""
        path = folder / MODEL_FILE
        if not path.exists():
            raise InputError(f"{folder} holds no model ({MODEL_FILE} is missing). Give the --out folder of a finished run.")
        plain = json.loads(path.read_text(encoding="utf-8"))
        view = View(**{**plain["view"], "cuts": tuple(plain["view"]["cuts"])})
        source = _restored(plain, folder) if view.kind in {"pooled", "raw"} else None
        model = _net(plain, view, folder) if plain["net"] else _head(folder / HEAD_FILE)
        return cls(tuple(plain["labels"]), model, view, source, plain["architecture"], plain["temperature"])


def load(folder: str | Path) -> Result:
    """Read a run's folder: the result, and the model to predict with.

    Raises
    ------
    InputError
        the folder holds no finished run.
    """
    folder = Path(folder)
    path = folder / RESULT_FILE
    if not path.exists():
        state = "an unfinished run; run the same transfer command to finish it" if (folder / "run.json").exists() else "no run of headstart transfer"
        raise InputError(f"{folder} holds {state} ({RESULT_FILE} is missing).")
    times = folder / TIMES_FILE
    seconds = json.loads(times.read_text(encoding="utf-8")) if times.exists() else {}
    try:
        return Result.from_json(path.read_text(encoding="utf-8"), times=seconds, model=Predictor.load(folder / "model"))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}). Remove it and run the same transfer command: finished work is kept.") from None


def _lean(source: Source, view: View) -> Source:
    """The same source, which keeps no more raw activations than the view needs."""
    backbone, weights = source.backbone, source.weights_sha256
    cuts = view.cuts if view.kind == "raw" else ()
    return dataclasses.replace(source, tune_cuts=cuts, opener=lambda: backbone, digest=lambda: weights)


def _restored(plain: dict[str, Any], folder: Path) -> Source:
    from safetensors.torch import load_file

    known = entry(plain["architecture"])
    cuts = tuple(plain["view"]["cuts"]) if plain["view"]["kind"] == "raw" else ()

    def opener() -> Backbone:
        backbone = random_twin(known, seed=0)
        backbone.load_state_dict(load_file(folder / BODY_FILE))
        return backbone

    return dataclasses.replace(known, tune_cuts=cuts, opener=opener, digest=lambda: str(plain["weights_sha256"]))


def _net(plain: dict[str, Any], view: View, folder: Path) -> Net:
    from collections import OrderedDict

    from safetensors.torch import load_file

    backbone = random_twin(entry(plain["architecture"]), seed=0)
    linear = nn.Linear(backbone.dim, len(plain["labels"]))
    head = linear if view.kind == "image" else nn.Sequential(OrderedDict(dropout=nn.Dropout(), linear=linear))
    net = Net(backbone.above(view.cuts[0] if view.cuts else 0), head)
    net.load_state_dict(load_file(folder / NET_FILE))
    return net.eval()


def _head(path: Path) -> Any:
    import skops.io

    ours = {f"{h.__module__}.{h.__qualname__}" for h in HEADS.values()}
    foreign = sorted(set(skops.io.get_untrusted_types(file=path)) - ours - TRUSTED)
    if foreign:
        raise InputError(f"{path} asks for code that Headstart did not write there ({foreign[0]}), so it is not loaded. Use a folder that you trust.")
    return skops.io.load(path, trusted=sorted(ours | TRUSTED))


TRUSTED = frozenset(
    {
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.model_selection._split.StratifiedKFold",
        "sklearn.tree._tree.Tree",
    }
)


def _contiguous(module: nn.Module) -> dict[str, Any]:
    return {name: value.detach().clone().contiguous() for name, value in module.state_dict().items()}
