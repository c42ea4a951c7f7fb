"""Save and load: a folder with weights in safetensors, heads in skops, and JSON. No pickle is written or read.

The folder is whole: it predicts on a machine that has none of the packages the weights came from.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from headstart.activations.engines import available
from headstart.activations.store import Store, default_root
from headstart.adaptation import ADAPTATION_FILE, Adaptation
from headstart.cases import read_cases
from headstart.core import Backbone, InputError, Net, Source, Task
from headstart.evaluate import scale
from headstart.evidence import THINGS
from headstart.learner import Fitted, outputs
from headstart.methods import Scratch
from headstart.methods.data import ESTIMATORS
from headstart.methods.features import HEADS
from headstart.methods.method import View
from headstart.methods.relations import REGRESSIONS, RELATIONS
from headstart.methods.relations.deep.bottleneck import Bottleneck
from headstart.methods.relations.label_shift import CORRECTION, corrected
from headstart.modality import door
from headstart.modality.image import list_images
from headstart.modality.table import read_items
from headstart.result import CASES_FILE, RESULT_FILE, TIMES_FILE, PredictedValue, Prediction, Predictions, Result
from headstart.sources import twin
from headstart.views import Views

MODEL_FILE, HEAD_FILE, NET_FILE, BODY_FILE = "model.json", "head.skops", "net.safetensors", "backbone.safetensors"
TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True)
class Predictor:
    """A fitted model with what it needs to see raw inputs: its view, its source's frozen stages, and how its output is read.

    ``recipe`` builds the stages that the net is made of, also where their weights began at random. ``labels`` is empty for regression;
    ``columns`` names what the task's file was read by: {"text": "body"}, or {"target": "y"}, so that another file is read alike; ``engine`` is what
    made the features that the head was fitted on.
    """

    labels: tuple[str, ...]
    modality: str
    columns: Mapping[str, str]
    model: Any
    view: View
    source: Source | None
    recipe: Mapping[str, Any]
    temperature: float
    reach: float
    engine: str = "torch"

    @classmethod
    def of(cls, fitted: Fitted, task: Task, *, temperature: float, reach: float, engine: str = "torch") -> Predictor:
        """Return the predictor of a fitted candidate."""
        method, source = fitted.candidate.method, fitted.candidate.source
        view = fitted.candidate.served
        recipe = method.twin.recipe if isinstance(method, Scratch) else {} if source is None else source.recipe  # type: ignore[attr-defined]
        if isinstance(method, Scratch) and view.source is not None:
            source = method.twin.source  # type: ignore[attr-defined]
        kept = None if source is None else _lean(source, view)
        return cls(task.labels, task.modality, dict(task.columns), fitted.model, view, kept, recipe, temperature, reach, engine)

    def moved(self, model: Any, view: View) -> Predictor:
        """Return the same with another model, of that view: one that goes on from this one. Temperature, reach and engine stay."""
        return dataclasses.replace(self, model=model, view=view, source=None if self.source is None else _lean(self.source, view))

    def output(self, inputs: Sequence[Any]) -> np.ndarray:
        """Return calibrated probabilities (n, c), or numbers (n, 1)."""
        if not len(inputs):
            return np.zeros((0, max(1, len(self.labels))))
        of = door(self.modality)
        table = {} if self.source is None else {self.source.name: self.source}
        views = Views(list(inputs), [of.digest(item) for item in inputs], table, Store(default_root()), self.modality, engine=lambda source: self.engine_here())
        raw = outputs(self.model, views.array(self.view), classes=len(self.labels))
        return scale(raw, self.temperature) if self.labels else raw

    def engine_here(self) -> str:
        """Return the engine that makes the features that the head was fitted on; PyTorch, with a warning, where it is missing."""
        if self.engine in available():
            return self.engine
        warnings.warn(f"This model's features were made by the engine {self.engine}, which is missing here; PyTorch in float32 runs instead.", stacklevel=4)
        return "torch"

    def predict(self, inputs: Sequence[Any]) -> Predictions:
        """Predict each input's label with its calibrated probability, or its number with an interval."""
        names = [str(item) if self.modality == "image" and isinstance(item, str | Path) else "" for item in inputs]
        if not self.labels:
            values = [float(v) for v in self.output(inputs)[:, 0]]
            return [PredictedValue(v, (v - self.reach, v + self.reach), name) for v, name in zip(values, names, strict=True)]
        return [
            Prediction(self.labels[int(p.argmax())], float(p.max()), tuple(float(v) for v in p), name)
            for p, name in zip(self.output(inputs), names, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the model into ``folder``."""
        import skops.io
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        net = isinstance(self.model, Net)
        plain = {
            "labels": self.labels,
            "modality": self.modality,
            "columns": dict(self.columns),
            "view": dataclasses.asdict(self.view),
            "recipe": dict(self.recipe),
            "source": None if self.source is None else _described(self.source),
            "temperature": self.temperature,
            "reach": self.reach,
            "engine": self.engine,
            "net": net,
            "dropout": net and any(isinstance(m, nn.Dropout) for m in self.model.head.modules()),
        }
        (folder / MODEL_FILE).write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if net:
            save_file(_contiguous(self.model), folder / NET_FILE)
        else:
            skops.io.dump(self.model, folder / HEAD_FILE)
        if self.source is not None:
            save_file(_contiguous(self.source.backbone), folder / BODY_FILE)
            if self.source.backbone.tokenizer is not None:
                from headstart.modality.language import save_tokenizer

                save_tokenizer(self.source.backbone, folder / TOKENIZER_FOLDER)

    @classmethod
    def load(cls, folder: Path, *, trusted: Sequence[str] = ()) -> Predictor:
        """Read what :meth:`save` wrote; ``trusted`` as for :func:`load`. Raises ``InputError`` when the folder holds no model or a foreign one."""
        path = folder / MODEL_FILE
        if not path.exists():
            raise InputError(f"{folder} holds no model ({MODEL_FILE} is missing). Give the --out folder of a finished run.")
        plain = json.loads(path.read_text(encoding="utf-8"))
        view = View(**{**plain["view"], **{name: tuple(plain["view"].get(name, ())) for name in ("cuts", "copies")}})
        source = None if plain["source"] is None else _restored(plain, folder)
        model = _net(plain, view, folder) if plain["net"] else _head(folder / HEAD_FILE, trusted=trusted)
        how = (plain["temperature"], plain["reach"], plain.get("engine", "torch"))
        return cls(tuple(plain["labels"]), plain["modality"], plain["columns"], model, view, source, plain["recipe"], *how)


def load(folder: str | Path, *, trusted: Sequence[str] = ()) -> Result | Adaptation:
    """Read a run's folder, of a transfer or of an adaptation: what was found, and the model to predict with.

    Parameters
    ----------
    folder : what ``transfer`` was given as ``out``
    trusted : dotted names of classes that may be made besides those of Headstart and scikit-learn: of your own estimators, where a run tried them as
        ``heads``. Name what you wrote yourself; a folder from elsewhere that asks for others may run what it likes

    Raises
    ------
    InputError
        the folder holds no finished run, or its model asks for a class that is not trusted.
    """
    return read_adaptation(folder) if (Path(folder) / ADAPTATION_FILE).exists() else read_result(folder, trusted=trusted)


def read_adaptation(folder: str | Path) -> Adaptation:
    """Read the folder of a finished adaptation. Raises ``InputError`` where it holds none."""
    folder = Path(folder)
    path = folder / ADAPTATION_FILE
    if not path.exists():
        raise InputError(f"{folder} holds no finished run of headstart adapt ({ADAPTATION_FILE} is missing).")
    try:
        return Adaptation.from_json(path.read_text(encoding="utf-8"), times=_seconds(folder), model=Predictor.load(folder / "model"))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}). Remove it and run the same adapt command: finished work is kept.") from None


def read_result(folder: str | Path, *, trusted: Sequence[str] = ()) -> Result:
    """Read the folder of a finished transfer; ``trusted`` as for :func:`load`. Raises ``InputError`` where it holds none."""
    folder = Path(folder)
    path = folder / RESULT_FILE
    if not path.exists():
        unfinished = "an unfinished run; run the same command to finish it"
        state = "an adaptation" if (folder / ADAPTATION_FILE).exists() else unfinished if (folder / "run.json").exists() else "no run of headstart transfer"
        raise InputError(f"{folder} holds {state} ({RESULT_FILE} is missing).")
    seconds = _seconds(folder)
    try:
        cases = read_cases(folder / CASES_FILE)
        return Result.from_json(path.read_text(encoding="utf-8"), times=seconds, model=Predictor.load(folder / "model", trusted=trusted), cases=cases)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}). Remove it and run the same transfer command: finished work is kept.") from None


def _seconds(folder: Path) -> dict[str, float]:
    times = folder / TIMES_FILE
    return json.loads(times.read_text(encoding="utf-8")) if times.exists() else {}


def read_inputs(result: Result | Adaptation, paths: Sequence[Path]) -> tuple[list[str], list[Any]]:
    """Return names and raw inputs to predict: images under the paths, or the rows of one file, read as the task's was.

    Raises
    ------
    InputError
        nothing there to read; several files where one is wanted; a column that the model needs is missing.
    """
    model = result.model
    if not isinstance(model, Predictor):
        raise InputError("This result holds no model to predict with. Read the whole folder of the run: headstart.load(folder).")
    if model.modality == "image":
        images = list_images(list(paths))
        return images, list(images)
    if len(paths) != 1:
        raise InputError(f"{len(paths)} files were given; a model of {THINGS[model.modality]} reads one. Join them, or predict one by one.")
    items = read_items(paths[0], text=model.columns.get("text"), leave_out=(model.columns.get("target", ""),))
    return [str(i) for i in range(1, len(items) + 1)], items


def _lean(source: Source, view: View) -> Source:
    """The same source, which keeps no more raw activations than the view needs."""
    backbone, weights = source.backbone, source.weights_sha256
    cuts = view.cuts if view.kind == "raw" else ()
    return dataclasses.replace(source, tune_cuts=cuts, opener=lambda: backbone, digest=lambda: weights)


def _described(source: Source) -> dict[str, Any]:
    """What a source is beside its weights, as plain values."""
    keys = ("name", "family", "parameters", "dim", "stages", "trained_on", "licence", "origin", "modality", "tune_cuts", "tail", "recipe")
    return {key: getattr(source, key) for key in keys} | {"weights_sha256": source.weights_sha256}


def _restored(plain: dict[str, Any], folder: Path) -> Source:
    from safetensors.torch import load_file

    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain["source"].items()}
    weights = known.pop("weights_sha256")

    def opener() -> Backbone:
        backbone = twin(known["recipe"], seed=0)
        backbone.load_state_dict(load_file(folder / BODY_FILE))
        if (folder / TOKENIZER_FOLDER).exists():
            from headstart.modality.language import load_tokenizer

            backbone.tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
        return backbone

    return Source(**known, opener=opener, digest=lambda: str(weights))


def _net(plain: dict[str, Any], view: View, folder: Path) -> Net:
    from safetensors.torch import load_file

    backbone = twin(plain["recipe"], seed=0)
    return assembled(backbone, view, load_file(folder / NET_FILE), outputs=max(1, len(plain["labels"])), dropout=plain["dropout"])


def assembled(backbone: Backbone, view: View, state: Mapping[str, Any], *, outputs: int, dropout: bool) -> Net:
    """Return the net that was saved: the backbone's stages above the view's cut and a linear head, behind a bottleneck where ``state`` has one's weights."""
    narrow = state.get("head.bottleneck.linear.weight")
    linear = nn.Linear(backbone.dim if narrow is None else len(narrow), outputs)
    head: nn.Module = nn.Sequential(OrderedDict(dropout=nn.Dropout(), linear=linear)) if dropout else linear
    if narrow is not None:
        head = nn.Sequential(OrderedDict(bottleneck=Bottleneck(backbone.dim, len(narrow)), linear=linear))
    if any(name.endswith(f".{CORRECTION}") for name in state):
        corrected(linear, np.ones(outputs))
    net = Net(backbone.above(view.cuts[0] if view.cuts else 0), head)
    net.load_state_dict(state)
    return net.eval()


def _head(path: Path, *, trusted: Sequence[str] = ()) -> Any:
    import skops.io

    ours = {f"{h.__module__}.{h.__qualname__}" for h in (*HEADS.values(), *ESTIMATORS, *RELATIONS.values(), *REGRESSIONS.values())}
    known = TRUSTED.union(ours, trusted)
    foreign = sorted(set(skops.io.get_untrusted_types(file=path)) - known)
    if foreign:
        hint = f"Use a folder that you trust; if {foreign[0]} is your own: headstart.load(folder, trusted={foreign!r})."
        raise InputError(f"{path} asks for code that Headstart did not write there ({foreign[0]}), so it is not loaded. {hint}")
    return skops.io.load(path, trusted=sorted(known))


TRUSTED = frozenset(
    {
        "headstart.methods.features.discriminant.GaussianClasses",
        "headstart.methods.features.discriminant.ShrunkLDA",
        "headstart.methods.features.gaussian_process.ProcessClassifier",
        "headstart.methods.features.gaussian_process.ProcessRegressor",
        "headstart.methods.features.head2toe.HeadOnRelevant",
        "headstart.methods.features.head2toe.RidgeOnRelevant",
        "headstart.methods.features.prototype.Prototypes",
        "headstart.methods.features.random_features.KernelFeatures",
        "headstart.methods.features.scaling.LiveScaler",
        "headstart.methods.features.stages.NumbersOnStages",
        "headstart.methods.features.stages.RidgeOnStages",
        "headstart.methods.features.svm.InnerFolds",
        "headstart.methods.features.svm.Platt",
        "headstart.methods.features.transforms.Components",
        "headstart.methods.features.transforms.SignedRoot",
        "headstart.methods.features.weighing.Balanced",
        "headstart.methods.features.weighing.Standardised",
        "headstart.methods.relations.gaussian.Coral",
        "headstart.methods.relations.gaussian.Covariance",
        "headstart.methods.relations.gaussian.Monge",
        "headstart.methods.relations.label_shift.Corrected",
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.gaussian_process.kernels.Sum",
        "sklearn.gaussian_process.kernels.WhiteKernel",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
    }
)


def _contiguous(module: nn.Module) -> dict[str, Any]:
    return {name: value.detach().clone().contiguous() for name, value in module.state_dict().items()}
