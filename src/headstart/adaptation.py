"""What was found when labels of one domain were taken to another, as plain numbers that go to JSON and back.

Only the standard library is imported here, as in ``result``. Everything is told twice where that is meant: by source only, and by the chosen candidate.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headstart.records import as_json, built, write_whole
from headstart.result import TIMES_FILE, Model, Predictions, Provenance, Score

FORMAT = 1
ADAPTATION_FILE = "adaptation.json"
SOURCE_ONLY = "source only"  # the name of the candidate that everything is compared with
Labels = Literal["none", "some"]


@dataclass(frozen=True)
class Side:
    """One domain as it was found.

    ``n`` cases, of which ``labelled`` have a label that was learned from; ``strata`` counts those by class, or by range of a numeric target. ``held_out``
    labelled cases trained nothing. ``shared`` cases have the bytes of a case of the other side. ``facts`` holds what the modality has to say, in words.
    ``apart`` is how well a classifier tells a source's cases from the target's (AUC; .5: not at all).
    """

    name: str
    n: int
    labelled: int
    held_out: int
    strata: Mapping[str, int]
    shared: int = 0
    unreadable: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    apart: Score | None = None


@dataclass(frozen=True)
class ClassDistance:
    """How far apart one class lies in the two domains. Target cases are taken by their label where it is known, else by the predicted one.

    ``auc`` has no value (``None``) where either side has too few cases of the class.
    """

    label: str
    n_source: int
    n_target: int
    auc: Score | None
    mmd2: float | None
    mmd_p: float | None


@dataclass(frozen=True)
class Distance:
    """How well a classifier tells the domains apart (AUC; .5: not at all), and their squared MMD, in the features that the head sees.

    ``auc_p`` and ``mmd_p`` are p-values under shuffled labels of domain; ``features`` says which features, in words.
    """

    features: str
    auc: Score
    auc_p: float
    mmd2: float
    mmd_p: float
    classes: tuple[ClassDistance, ...] = ()


@dataclass(frozen=True)
class Opinion:
    """What one validator said of one candidate; ``rank`` 1 is the best of all candidates that it could judge. ``value`` is ``None`` where it could not."""

    validator: str
    value: float | None
    rank: int | None


@dataclass(frozen=True)
class Candidacy:
    """One way to go from source to target that was tried.

    Parameters
    ----------
    name : unlike that of any other candidate; "source only" is the one that all are compared with
    method : "source only" heads have level "none" or "feature", relation-level methods have "relation"
    network : whose frozen features it learns from; "" where it learns from the raw inputs
    sources : which source domains it was trained on
    source_score : on held-out source cases
    said : what each validator says of it
    changed : share of the target cases whose predicted class differs from that of source only; ``None`` for numbers
    gain : over source only, in the metric's unit, with ``interval`` at 90 %: foretold, or (``measured``) from labelled target cases
    target_score : on labelled target cases that it was not trained on; ``None`` where the target has no labels to learn from
    scored : on the target's own labels, read once at the end because ``--score`` asked for it; nothing was chosen by it
    collapsed : why its predictions look degenerate; such a candidate is never chosen
    """

    name: str
    method: str
    level: str
    params: Mapping[str, Any]
    network: str
    sources: tuple[str, ...]
    status: Literal["complete", "failed", "stopped"]
    source_score: Score | None = None
    said: tuple[Opinion, ...] = ()
    changed: float | None = None
    gain: float | None = None
    interval: tuple[float, float] | None = None
    measured: bool = False
    target_score: Score | None = None
    scored: Score | None = None
    folds: tuple[float, ...] = ()
    collapsed: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Choice:
    """Which candidate stands for adaptation (``candidate``), by which ``rule`` over validators, and why. ``validators`` tells what each one looks at."""

    rule: str
    candidate: str
    why: str
    validators: Mapping[str, str]


@dataclass(frozen=True)
class AdaptationVerdict:
    """The answer against source only. ``method`` "test": measured on labelled target cases; "forecast": foretold without; "none": there was nothing to do.

    ``ship`` names the candidate that was shipped. ``gain`` is in the metric's unit, ``interval`` at ``level``; ``p_gain`` is P(gain > margin).
    """

    decision: Literal["adapt", "do not adapt", "undecided", "nothing to do"]
    ship: str
    gain: float
    interval: tuple[float, float]
    p_gain: float
    method: Literal["forecast", "test", "none"]
    why: str
    margin: float = 0.0
    level: float = 0.90

    @property
    def is_known(self) -> bool:
        """Whether anything is known of the gain: its interval is not all that a score can change by."""
        return self.interval != (-1.0, 1.0)

    def __str__(self) -> str:
        if self.method == "none":
            return self.decision
        low, high = self.interval
        if not self.is_known:
            return f"{self.decision} (nothing is known of the gain over source only)"
        how = "measured" if self.method == "test" else "foretold"
        return f"{self.decision} ({how} gain over source only {self.gain:+.3f}, {self.level:.0%} interval {low:+.3f} to {high:+.3f})"


@dataclass(frozen=True)
class DomainMap:
    """A picture of both domains in the plane, before and after, in one projection.

    Point i is row ``row[i]`` (from 0) of domain ``domains[domain[i]]``, the target the last of ``domains``. ``label`` indexes ``labels``: the true class of a
    source case, the class that source only (``before``) and the chosen candidate (``after``) predict for a target case.
    """

    method: str
    domains: tuple[str, ...]
    labels: tuple[str, ...]
    row: tuple[int, ...]
    domain: tuple[int, ...]
    x_before: tuple[float, ...]
    y_before: tuple[float, ...]
    label_before: tuple[int, ...]
    x_after: tuple[float, ...]
    y_after: tuple[float, ...]
    label_after: tuple[int, ...]


@dataclass(frozen=True)
class Confidence:
    """Target cases counted by the probability of their predicted class, between ``edges``; before and after."""

    edges: tuple[float, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class ClassRate:
    """A class's share: in the source's labels, among the target's predictions before and after, and as estimated for the target with a 90 % interval."""

    label: str
    source: float
    before: float
    after: float
    estimated: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ClassMove:
    """What the chosen candidate did to the target cases that source only called ``label``.

    ``moved`` of ``n`` are called something else now, ``came`` from other classes are called so now. ``neighbours`` and ``candidates`` are the shares of the
    moved whose new class their nearest target cases, and the other candidates, support more than the old one;
    below a half they moved wrongly, as far as can be told.
    ``gained`` and ``lost`` count moved cases that became right and wrong, where target labels are known.
    """

    label: str
    n: int
    moved: int
    came: int
    neighbours: float | None = None
    candidates: float | None = None
    gained: int | None = None
    lost: int | None = None

    @property
    def looks_wrong(self) -> bool:
        """Whether the moves look wrong: by known labels, else where neither neighbours nor candidates support them."""
        if self.gained is not None and self.lost is not None:
            return self.lost > self.gained
        opinions = [share for share in (self.neighbours, self.candidates) if share is not None]
        return bool(opinions) and self.moved > 0 and max(opinions) < 0.5


@dataclass(frozen=True)
class Warned:
    """What is odd about the two domains, by a test: ``kind`` is "open set", "partial", "label shift", "one class", "tiny", "imbalance", "columns", ..."""

    kind: str
    words: str
    labels: tuple[str, ...] = ()
    test: str = ""
    p: float | None = None


@dataclass(frozen=True)
class Adaptation:
    """Everything that an adaptation found. ``moves[i][j]`` target cases that source only called ``labels[i]`` are called ``labels[j]`` by the chosen candidate.

    ``labels`` is empty for numbers, and then ``rates``, ``moved``, ``moves`` and ``confidence`` are too. ``scored`` says whether the target's labels were read
    at the end to score what was found; they chose nothing. ``source_free`` says that the source was a finished run, without its cases: then nothing is known of
    how far the domains are apart. ``before`` and ``after`` are distances in the features of source only and of the chosen candidate.
    """

    task: str
    kind: str
    modality: str
    metric: str
    labels: tuple[str, ...]
    sources: tuple[Side, ...]
    target: Side
    target_labels: Labels
    network: str
    networks: Mapping[str, str]
    verdict: AdaptationVerdict
    choice: Choice
    candidates: tuple[Candidacy, ...]
    before: Distance | None
    after: Distance | None
    nearest_source: str
    rates: tuple[ClassRate, ...]
    moved: tuple[ClassMove, ...]
    moves: tuple[tuple[int, ...], ...]
    confidence: Confidence | None
    map: DomainMap | None
    warned: tuple[Warned, ...]
    scored: bool
    provenance: Provenance
    stopped_by: Literal["plan", "budget"]
    notes: tuple[str, ...] = ()
    source_free: bool = False
    times: Mapping[str, float] = field(default_factory=dict, compare=False)
    model: Model | None = field(default=None, compare=False, repr=False)

    @property
    def shipped(self) -> str:
        """The name of the candidate that was shipped."""
        return self.verdict.ship

    def candidate(self, name: str) -> Candidacy | None:
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
        (folder / TIMES_FILE).write_text(json.dumps(dict(self.times), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        write_whole(self.to_json(), folder / ADAPTATION_FILE)  # why last and at once: this file says that the run is finished
        return folder

    def to_json(self) -> str:
        """Return the findings as JSON text: sorted keys, no seconds, no model; equal findings give equal bytes."""
        return as_json(self, without={"times", "model"}, format=FORMAT)

    @classmethod
    def from_json(cls, text: str, *, times: Mapping[str, float] | None = None, model: Model | None = None) -> Adaptation:
        """Read what :meth:`to_json` wrote. Raises ``ValueError`` for another format."""
        values = json.loads(text)
        if values.pop("format", None) != FORMAT:
            raise ValueError(f"this is not an adaptation of format {FORMAT}")
        found: Adaptation = dataclasses.replace(built(cls, values), times=dict(times or {}), model=model)
        return found
