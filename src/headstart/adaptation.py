"""What was found when labels of one domain were taken to another, as plain numbers that go to JSON and back.

Only the standard library is imported here, as in ``result``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headstart.records import built, plain
from headstart.result import Model, Predictions, Provenance, Score

FORMAT = 1
ADAPTATION_FILE = "adaptation.json"
Labels = Literal["none", "some"]


@dataclass(frozen=True)
class Side:
    """One domain as it was found: ``n`` cases, how many have labels, and how many of each class among those."""

    name: str
    n: int
    labelled: int
    strata: Mapping[str, int]
    unreadable: int = 0


@dataclass(frozen=True)
class ClassGap:
    """How far apart one class lies in the two domains, before and after: MMD^2 of its cases, 0 where they are alike.

    Target cases are taken by their predicted label. ``moved`` of ``n_target`` cases changed their label by the adaptation.
    """

    label: str
    n_source: int
    n_target: int
    before: float
    after: float
    moved: int


@dataclass(frozen=True)
class Distance:
    """How well a classifier tells the domains apart (AUC; .5: not at all), and their MMD^2, in the features that the head sees."""

    auc: Score
    mmd2: float


@dataclass(frozen=True)
class Said:
    """What one validator said of one candidate; ``rank`` 1 is the best of all candidates."""

    validator: str
    value: float
    rank: int


@dataclass(frozen=True)
class Candidature:
    """One way to adapt that was tried: what it reached on held-out source cases, what the validators said, and on labelled target cases where there are any.

    ``gain`` is against source only: foretold from the validators with ``interval`` where the target has no labels (``measured`` false), else measured.
    ``collapsed`` says why its predictions look degenerate; such a candidate is never chosen.
    """

    name: str
    method: str
    params: Mapping[str, Any]
    source_score: Score
    said: tuple[Said, ...]
    target_score: Score | None
    gain: float | None
    interval: tuple[float, float] | None
    measured: bool
    agrees: float
    status: Literal["complete", "stopped", "failed"] = "complete"
    reason: str = ""
    collapsed: str = ""


@dataclass(frozen=True)
class Warned:
    """What is odd about the two domains, by a test: ``kind`` is "open set", "partial", "label shift", "identical", "tiny", "no overlap" or another word."""

    kind: str
    words: str
    labels: tuple[str, ...] = ()
    p: float | None = None


@dataclass(frozen=True)
class Judgement:
    """The answer against source only, at ``level``: by a test on labelled target cases (``measured``), else foretold from what validators say."""

    decision: Literal["adapt", "do not adapt", "undecided"]
    ship: str
    gain: float
    interval: tuple[float, float]
    p_gain: float
    measured: bool
    why: str
    margin: float = 0.0
    level: float = 0.90

    def __str__(self) -> str:
        low, high = self.interval
        how = "measured" if self.measured else "foretold"
        return f"{self.decision} ({how} gain over source only {self.gain:+.3f}, {self.level:.0%} interval {low:+.3f} to {high:+.3f})"


@dataclass(frozen=True)
class DomainMap:
    """A two-dimensional picture of both domains, before or after: ``domain`` 0 is the source, 1 the target; ``label[i]`` indexes ``labels``.

    A target case's label is the predicted one; ``sure`` is its probability.
    """

    method: str
    labels: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    domain: tuple[int, ...]
    label: tuple[int, ...]
    sure: tuple[float, ...]


@dataclass(frozen=True)
class Adaptation:
    """Everything that an adaptation found. ``confidence`` counts target cases by the probability of their label, in ten bins from 0 to 1.

    ``validators`` tells, by name, what each one looks at; ``rule`` how they choose. ``moves[i][j]`` target cases that source only called ``labels[i]``
    are now ``labels[j]``. ``prior`` has each class's share in the source, and the share estimated for the target.
    """

    sources: tuple[Side, ...]
    target: Side
    kind: str
    metric: str
    labels: tuple[str, ...]
    target_labels: Labels
    network: str
    judgement: Judgement
    candidates: tuple[Candidature, ...]
    chosen: str
    shipped: str
    validators: Mapping[str, str]
    rule: str
    before: Distance
    after: Distance
    classes: tuple[ClassGap, ...]
    moves: tuple[tuple[int, ...], ...]
    maps: tuple[DomainMap, ...]
    confidence: tuple[int, ...]
    prior: Mapping[str, tuple[float, float]]
    warned: tuple[Warned, ...]
    provenance: Provenance
    stopped_by: Literal["plan", "budget"]
    notes: tuple[str, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict, compare=False)
    model: Model | None = field(default=None, compare=False, repr=False)

    def candidate(self, name: str) -> Candidature | None:
        """Return the candidate of that name, or ``None``."""
        return next((c for c in self.candidates if c.name == name), None)

    def predict(self, inputs: Sequence[Any]) -> Predictions:
        """Predict with the shipped model, as :meth:`headstart.Result.predict` does."""
        if self.model is None:
            raise ValueError("This adaptation was read from its JSON file alone. Read the whole folder with headstart.load(folder) to predict.")
        return self.model.predict(inputs)

    def save(self, folder: str | Path) -> Path:
        """Write ``adaptation.json``, ``times.json`` and the shipped model into ``folder``; return the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.model is not None:
            self.model.save(folder / "model")
        (folder / "times.json").write_text(json.dumps(dict(self.times), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        scratch = folder / f".{ADAPTATION_FILE}.new"
        scratch.write_text(self.to_json(), encoding="utf-8")
        scratch.replace(folder / ADAPTATION_FILE)  # why last and at once: this file says that the run is finished
        return folder

    def to_json(self) -> str:
        """Return the findings as JSON text: sorted keys, no seconds, no model; equal findings give equal bytes."""
        values = {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in {"times", "model"}}
        return json.dumps({"format": FORMAT, **values}, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, times: Mapping[str, float] | None = None, model: Model | None = None) -> Adaptation:
        """Read what :meth:`to_json` wrote. Raises ``ValueError`` for another format."""
        values = json.loads(text)
        if values.pop("format", None) != FORMAT:
            raise ValueError(f"this is not an adaptation of format {FORMAT}")
        found: Adaptation = dataclasses.replace(built(cls, values), times=dict(times or {}), model=model)
        return found
