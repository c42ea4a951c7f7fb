"""Findings: what a run learned, as plain numbers that go to JSON and back.

Only the standard library is imported here, so a report or another program can read a result without PyTorch.
Seconds live in ``Result.times`` and in their own file: a repeated run gives the same ``result.json``, byte for byte.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from headstart.cases import Case, write_cases
from headstart.fronts import FrontPoint as FrontPoint
from headstart.records import as_json, built, write_whole
from headstart.verdicts import Contender as Contender
from headstart.verdicts import Corrected as Corrected
from headstart.verdicts import Outlook as Outlook
from headstart.verdicts import Verdict as Verdict

FORMAT = 2
RESULT_FILE = "result.json"
TIMES_FILE = "times.json"
CASES_FILE = "cases.csv"


Predictions: TypeAlias = "list[Prediction] | list[PredictedValue]"


class Model(Protocol):
    """What a result needs of the model that it ships: predict, and save itself into a folder."""

    def predict(self, inputs: Sequence[Any]) -> Predictions: ...

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Score:
    """A measured number with its interval (``None`` where none can be given) and the number of cases behind it.

    >>> Score("accuracy", 0.81, interval=(0.76, 0.85), n=300)
    Score(name='accuracy', value=0.81, interval=(0.76, 0.85), n=300, unit='0..1', view='', higher_is_closer=True)
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    n: int | None = None
    unit: str = "0..1"
    view: str = ""
    higher_is_closer: bool = True


@dataclass(frozen=True)
class Prediction:
    """One predicted label with its calibrated probability, 0..1, and the probability of every label in the model's order."""

    label: str
    probability: float
    probabilities: tuple[float, ...]
    path: str = ""


@dataclass(frozen=True)
class PredictedValue:
    """One predicted number, in the target's unit, with the interval that holds the truth at the stated level."""

    value: float
    interval: tuple[float, float]
    path: str = ""
    level: float = 0.90


@dataclass(frozen=True)
class Trial:
    """One setting that was tried: ``folds`` holds a score per fold, fewer than planned where the trial was stopped early.

    One that is "excluded" breaks a bound of the user's, as its ``reason`` says: it was not trained, and has no folds.
    """

    number: int
    arm: Literal["baseline", "frozen", "fine-tuned"]
    method: str
    source: str | None
    params: Mapping[str, Any]
    folds: tuple[float, ...]
    status: Literal["complete", "stopped", "failed", "excluded"] = "complete"
    reason: str = ""

    @property
    def score(self) -> float:
        """Mean over the folds that ran; minus infinity when none did."""
        return sum(self.folds) / len(self.folds) if self.folds else float("-inf")


@dataclass(frozen=True)
class Step:
    """One step of progressive transfer: the trial, and what it gained over the last step that was taken, on the folds of both.

    ``share`` is a, the share of the way from random weights to the source's; the stages behind ``cut`` learn, and ``stage`` names that cut. ``gain`` and its
    90 % ``interval`` are ``None`` for the origin, and for a trial that was given up before its last fold.
    """

    trial: int
    share: float
    cut: int
    stage: str
    score: Score
    gain: float | None
    interval: tuple[float, float] | None
    taken: bool
    why: str


@dataclass(frozen=True)
class Arm:
    """The chosen setting of one arm: its score over the judging folds, and on the test split that nothing tuned on."""

    name: Literal["baseline", "frozen", "fine-tuned"]
    trial: int
    method: str
    source: str | None
    params: Mapping[str, Any]
    cv: Score
    test: Score
    folds: tuple[float, ...]


@dataclass(frozen=True)
class RankedSource:
    """A source and what a cheap probe on its frozen features scored on the training part."""

    name: str
    probe: Score
    parameters: int
    dim: int
    licence: str
    why: str


@dataclass(frozen=True)
class CurvePoint:
    """Scores of both arms when only ``n`` labelled cases are available for training; ``folds`` are their pairs, fold by fold."""

    n: int
    transfer: Score
    baseline: Score
    folds: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Confusion:
    """``counts[i][j]`` test cases of true label ``labels[i]`` were predicted as ``labels[j]``."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Mistake:
    """A test case that the shipped model got wrong: ``thumbnail`` is a ``data:`` address of a small JPEG, ``text`` the beginning of a text or a row.

    ``probability`` is that of the predicted label; ``None`` for a number.
    """

    path: str
    truth: str
    predicted: str
    probability: float | None
    thumbnail: str = ""
    text: str = ""


@dataclass(frozen=True)
class Scatter:
    """True and predicted numbers of the test cases, in the target's unit."""

    truth: tuple[float, ...]
    predicted: tuple[float, ...]


@dataclass(frozen=True)
class FeatureMap:
    """A two-dimensional picture of the features: ``label[i]`` indexes ``labels``; ``method`` names how it was drawn."""

    method: str
    labels: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    label: tuple[int, ...]


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error and log loss on the test split, before and after temperature scaling (Guo et al. 2017)."""

    temperature: float
    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float


@dataclass(frozen=True)
class Coverage:
    """Intervals of predicted numbers: value +- ``reach`` should hold the truth at ``level``; on the test split it held it ``measured`` of the time."""

    level: float
    reach: float
    measured: float
    n: int


@dataclass(frozen=True)
class Found:
    """What was found in the user's data, before anything ran.

    ``things`` names the cases ("images", "texts", "rows"); ``strata`` counts them by class, or by range of a numeric target; ``facts`` holds
    what else the modality has to say, in words; ``conflicts`` names cases with equal content and different targets.
    """

    n: int
    things: str
    strata: Mapping[str, int]
    facts: Mapping[str, str]
    unreadable: tuple[str, ...]
    duplicates: int
    conflicts: tuple[str, ...]
    groups: int | None
    n_train: int
    n_test: int


@dataclass(frozen=True)
class Provenance:
    """How to repeat the run: command, seed, versions and hashes."""

    command: str
    seed: int
    budget: str
    versions: Mapping[str, str]
    data_sha256: str
    weights_sha256: Mapping[str, str]
    engine: str
    dtype: str
    threads: int


@dataclass(frozen=True)
class Result:
    """Everything a run found. ``stopped_by`` is "plan" when all planned trials ran and "budget" when time ended first; ``settings`` are those of training
    that were not the defaults. ``bounds`` are those on size, memory (bytes) and latency (seconds), and ``front`` is every finished trial with what its model
    takes; both are empty where neither a bound nor the front was asked for."""

    task: str
    kind: str
    metric: str
    labels: tuple[str, ...]
    verdict: Verdict
    found: Found
    sources: tuple[RankedSource, ...]
    trials: tuple[Trial, ...]
    arms: tuple[Arm, ...]
    shipped: Literal["baseline", "frozen", "fine-tuned"]
    curve: tuple[CurvePoint, ...]
    confusion: Confusion | None
    scatter: Scatter | None
    mistakes: tuple[Mistake, ...]
    map: FeatureMap | None
    calibration: Calibration | None
    coverage: Coverage | None
    provenance: Provenance
    stopped_by: Literal["plan", "budget"]
    notes: tuple[str, ...] = ()
    walk: tuple[Step, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    outlook: Outlook | None = None
    contenders: tuple[Contender, ...] = ()
    bounds: Mapping[str, float] = field(default_factory=dict)
    front: tuple[FrontPoint, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict, compare=False)
    model: Model | None = field(default=None, compare=False, repr=False)
    cases: tuple[Case, ...] = field(default=(), compare=False, repr=False)

    def arm(self, name: str) -> Arm | None:
        """Return the arm of that name, or ``None`` when the run has none (the budget ended first)."""
        return next((a for a in self.arms if a.name == name), None)

    def predict(self, inputs: Sequence[Any]) -> Predictions:
        """Predict with the shipped model. Images: paths, or arrays (h, w, c); texts: strings; tables: a mapping of columns for each row.

        Labels come with calibrated probabilities, numbers with 90 % intervals.
        """
        if self.model is None:
            raise ValueError("This result was read from result.json alone. Read the whole folder with headstart.load(folder) to predict.")
        return self.model.predict(inputs)

    def save(self, folder: str | Path) -> Path:
        """Write ``result.json``, ``times.json``, ``cases.csv`` (which inputs were trained on) and the shipped model into ``folder``; return the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.model is not None:
            self.model.save(folder / "model")
        (folder / TIMES_FILE).write_text(json.dumps(dict(self.times), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        write_cases(self.cases, folder / CASES_FILE)
        write_whole(self.to_json(), folder / RESULT_FILE)  # why last and at once: this file says that the run is finished
        return folder

    def to_json(self) -> str:
        """Return the findings as JSON text: sorted keys, no seconds, no model; equal findings give equal bytes."""
        return as_json(self, without={"times", "model", "cases"}, format=FORMAT)

    @classmethod
    def from_json(cls, text: str, *, times: Mapping[str, float] | None = None, model: Model | None = None, cases: Sequence[Case] = ()) -> Result:
        """Read what :meth:`to_json` wrote. Raises ``ValueError`` for another format."""
        values = json.loads(text)
        if values.pop("format", None) != FORMAT:
            raise ValueError(f"this is not a result of format {FORMAT}")
        result: Result = dataclasses.replace(built(cls, values), times=dict(times or {}), model=model, cases=tuple(cases))
        return result


def counted(parameters: int) -> str:
    """Return a number of parameters in words.

    >>> counted(3371008), counted(25400)
    ('3.4 M', '25 k')
    """
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e5 else f"{parameters / 1e3:.0f} k"
