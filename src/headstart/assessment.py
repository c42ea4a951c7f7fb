"""Findings of an assessment, as plain numbers that go to JSON and back: which source, and is it worth it?

Only the standard library is imported here. Seconds are kept apart from what was found, so that equal findings give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from headstart.records import as_json, built
from headstart.result import Score

ASSESSMENT_FORMAT = 1
Advice = Literal["transfer", "do not transfer", "undecided", "unknown"]


@dataclass(frozen=True)
class Promise:
    """What fine-tuning should reach, with the interval that held on past tasks at ``level``.

    ``is_promised`` is false where no anchor run was made, or too few past tasks are known to say how far such forecasts err: the number is then a
    guess, good for an order and for nothing else. ``p_harm`` is P(fine-tuned < no transfer), ``None`` where no baseline is known.
    """

    value: float
    interval: tuple[float, float]
    is_promised: bool
    p_harm: float | None
    tasks: int
    why: str
    level: float = 0.90


@dataclass(frozen=True)
class Gain:
    """Frozen features and a head, minus no transfer, on the same folds: mean, interval at ``level``, and P(gain < 0), the risk of negative transfer."""

    value: float
    interval: tuple[float, float]
    p_harm: float
    folds: int
    level: float = 0.90


@dataclass(frozen=True)
class StageScore:
    """What a probe on one stage's activations scores: a point of the curve that says how deep knowledge carries over."""

    stage: str
    score: Score


@dataclass(frozen=True)
class NearestClass:
    """A class of the target, and the classes of the source whose names mean most nearly the same, with the cosine of each."""

    label: str
    classes: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class AssessedSource:
    """One source, seen from four sides. What could not be measured is ``None`` or empty.

    ``frozen`` is the cross-validated score of a head on frozen features: measured, not predicted. ``scores`` hold every measure, each with its view;
    ``facts`` says what the architecture meets, ``data`` how the target's inputs differ from the source's data, ``why`` what decides.
    """

    name: str
    parameters: int
    dim: int
    licence: str
    trained_on: str
    frozen: Score | None
    gain: Gain | None
    fine_tuned: Promise | None
    stages: tuple[StageScore, ...]
    stages_kept: tuple[str, ...]
    scores: tuple[Score, ...]
    nearest: tuple[NearestClass, ...]
    facts: str
    data: str
    why: str


@dataclass(frozen=True)
class CkaMap:
    """How alike stages of two sources see the target's inputs: ``values[i][j]`` is the debiased linear CKA of ``rows[i]`` and ``columns[j]``."""

    row_source: str
    column_source: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Assessment:
    """Sources of a target, best first, and the advice. ``baseline`` is what the best simple model reaches without transfer, cross-validated.

    ``n`` cases were given and ``n_used`` were looked at: the training part that ``transfer`` would see with the same seed, so that its held-out cases stay
    unseen. ``unknown`` says what cannot be known from what was given. ``times`` are seconds: of each source, of the baseline and in all.
    """

    task: str
    kind: str
    modality: str
    metric: str
    labels: tuple[str, ...]
    n: int
    n_used: int
    baseline: Score | None
    baseline_method: str
    advice: Advice
    words: str
    sources: tuple[AssessedSource, ...]
    anchor: str
    agreement: CkaMap | None
    layers: CkaMap | None
    structure: str
    unknown: tuple[str, ...]
    notes: tuple[str, ...]
    seed: int
    versions: Mapping[str, str]
    times: Mapping[str, float] = field(default_factory=dict, compare=False)

    def to_json(self, *, times: bool = True) -> str:
        """Return the findings as JSON text with sorted keys; without ``times`` equal findings give equal bytes."""
        return as_json(self, without=() if times else {"times"}, format=ASSESSMENT_FORMAT)

    @classmethod
    def from_json(cls, text: str) -> Assessment:
        """Read what :meth:`to_json` wrote. Raises ``ValueError`` for another format."""
        values = json.loads(text)
        if values.pop("format", None) != ASSESSMENT_FORMAT:
            raise ValueError(f"this is not an assessment of format {ASSESSMENT_FORMAT}")
        found: Assessment = built(cls, values)
        return found
