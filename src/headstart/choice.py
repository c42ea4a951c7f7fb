"""Which engine runs a source's frozen stages: measured on a few batches of the user's own inputs, after a check of what it computes.

An engine is taken only where its features agree with those of PyTorch in float32. What was measured is remembered per machine and source, and what was
chosen is kept in the run's folder, so that the noise of a clock changes no result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV

from headstart.activations import activations_of, encoded, graphs_of, wanted_of
from headstart.activations.costs import record_speeds, speeds
from headstart.activations.engines import ENGINES, Engine, available, described, open_engine, require, revision
from headstart.activations.store import Store
from headstart.core import InputError, Source
from headstart.methods.features.ridge import ALPHAS, RidgeLOO
from headstart.methods.features.scaling import LiveScaler
from headstart.views import cuts_of

AUTO, PLAIN = "auto", "torch"
CHOICES_FILE = "engines.json"
CHECKED = 128  # inputs: four batches, of which the first, that warms up, is not timed
FEWEST = 5000  # inputs from which measuring (15 to 25 s a source, a third of it converting) is paid back: an input gains 2 to 10 ms
WORTH = 1.1  # times as fast as PyTorch in float32, or it is not worth another engine
ALIKE = {
    "float32": 0.99999,
    "bfloat16": 0.985,
}  # least mean cosine of inputs, after the mean over inputs is taken off: images of one kind differ by little, and that is what heads read
LOST = 0.005  # of the probe's score that may be lost, or else one input


@dataclass(frozen=True)
class Choice:
    """The engine that a source runs on; ``why`` says for people how its features were checked, and is empty where there was nothing to check."""

    engine: str = PLAIN
    why: str = ""


@dataclass(frozen=True)
class Agreement:
    """How the features of an engine agree with those of PyTorch in float32 on ``n`` inputs: the least mean cosine, two scores of a probe."""

    cosine: float
    probe: float
    plain: float
    n: int

    def holds(self, precision: str) -> bool:
        """Whether it lies within the bound of that precision, "float32" or "bfloat16"."""
        return self.cosine >= ALIKE[precision] and self.probe >= self.plain - max(LOST, 1 / self.n) - 1e-9

    def __str__(self) -> str:
        return f"cosine {self.cosine:.5f} with PyTorch in float32, a ridge probe scores {self.probe:.3f} on them and {self.plain:.3f} on those"


@dataclass
class Chooser:
    """Chooses an engine per source, once.

    Parameters
    ----------
    asked : "auto", or the engine to run wherever it can
    items, digests, y : n inputs, the hashes of their bytes, and class codes or numbers (n,)
    rows : which of them may be looked at: the training part
    classes : number of classes; 0 for regression
    folder : of the run, where choices are kept; ``None`` keeps none
    say : hears what was measured
    """

    asked: str
    items: Sequence[Any]
    digests: Sequence[str]
    y: np.ndarray
    rows: np.ndarray
    classes: int
    store: Store
    folder: Path | None = None
    say: Callable[[str], None] = lambda text: None
    choices: dict[str, Choice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.asked != AUTO:
            require(self.asked)
        if self.folder is not None and (path := self.folder / CHOICES_FILE).exists():
            self.choices |= {name: Choice(**kept) for name, kept in json.loads(path.read_text(encoding="utf-8")).items()}

    def __call__(self, source: Source) -> str:
        """Return the engine for a source.

        Raises
        ------
        InputError
            the engine that was asked for cannot run the source, or computes something else; one that was chosen before is no longer installed.
        """
        if source.name not in self.choices:
            self.choices[source.name] = self._choose(source)
            self._keep()
        require(self.choices[source.name].engine)
        return self.choices[source.name].engine

    def _choose(self, source: Source) -> Choice:
        graph = source.recipe.get("library") == "onnx" or source.modality == "tabular"
        if self.asked != AUTO and self.asked != PLAIN and graph:
            return Choice(why=f"{source.name} ran on PyTorch: {self.asked} cannot run it")
        if self.asked == PLAIN or graph or (self.asked == AUTO and len(self.items) < FEWEST):
            return Choice()
        check = _Check(source, self)
        if self.asked == AUTO:
            return check.fastest()
        found = check.agreement(self.asked)
        if not found.holds(ENGINES[self.asked][2]):
            raise InputError(f"{self.asked} departs from PyTorch on {source.name}: {found}. Use --engine auto, which leaves such engines out.")
        return check.choice(self.asked, found)

    def _keep(self) -> None:
        if self.folder is not None:
            path = self.folder / CHOICES_FILE
            scratch = path.with_suffix(".new")
            scratch.write_text(json.dumps({name: asdict(c) for name, c in self.choices.items()}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            scratch.replace(path)


class _Check:
    """A source on some of the inputs: how fast an engine is, and whether it agrees."""

    def __init__(self, source: Source, chooser: Chooser) -> None:
        self.source, self.chooser = source, chooser
        rows = np.random.default_rng(0).permutation(chooser.rows)[:CHECKED]
        self.inputs = encoded(source, [chooser.items[i] for i in rows], [chooser.digests[i] for i in rows])
        self.y = chooser.y[rows]
        self.wanted = wanted_of(*cuts_of(source))
        self.plain = self._outputs(PLAIN)

    def fastest(self) -> Choice:
        """Return the fastest engine whose features agree; PyTorch in float32 where none is clearly faster."""
        root, key = self.chooser.store.root, "; ".join([self.source.weights_sha256, *(revision(e) for e in _candidates())])
        seconds = speeds(root, key)
        if not seconds:
            seconds = {e: self._seconds(e) for e in _candidates()}
            record_speeds(root, key, seconds)
        here = {e: s for e, s in seconds.items() if s is not None}
        enough = here[PLAIN] / WORTH
        for engine in sorted((e for e in here if here[e] <= enough), key=lambda e: here[e]):
            found = self.agreement(engine)
            name = f"{described(engine)} in {ENGINES[engine][2]}"
            if found.holds(ENGINES[engine][2]):
                self.chooser.say(f"{self.source.name} runs on {name}, {here[PLAIN] / here[engine]:.1f} times as fast as PyTorch in float32")
                return self.choice(engine, found)
            self.chooser.say(f"{self.source.name} does not run on {name}: {found}")
        return Choice()

    def choice(self, engine: str, found: Agreement) -> Choice:
        """Return the choice of an engine that was checked."""
        name = f"{described(engine)} in {ENGINES[engine][2]}"
        return Choice(engine, f"{self.source.name} ran on {name}. Checked on {found.n} inputs of the training part: {found}")

    def agreement(self, engine: str) -> Agreement:
        """Return how an engine's final features, and whole activations that nets are tuned from, agree with PyTorch's in float32."""
        ours = self._outputs(engine)
        at = len(cuts_of(self.source)[0]) - 1
        # why from there on: features of other stages are seen by cross-validation before anything is built on them
        cosine = min(_cosine(a, b) for a, b in zip(ours[at:], self.plain[at:], strict=True))
        return Agreement(cosine, self._probe(ours[at]), self._probe(self.plain[at]), len(self.inputs))

    def _probe(self, x: np.ndarray) -> float:
        """Leave-one-out score, 0..1, of ridge on features (n, d)."""
        if self.chooser.classes:
            codes = np.unique(self.y, return_inverse=True)[1]
            left_out = RidgeLOO().fit(x, codes).loo_decision_ if codes.max() else np.ones((len(codes), 1))
            return float(np.mean(left_out.argmax(axis=1) == codes))
        ridge = RidgeCV(ALPHAS, store_cv_results=True).fit(LiveScaler().fit_transform(x), self.y)
        best = int(np.argmin(ridge.cv_results_.mean(axis=0)))
        return float(max(0.0, 1 - ridge.cv_results_[:, best].mean() / max(self.y.var(), 1e-12)))

    def _seconds(self, engine: str) -> float | None:
        """Seconds per input, of the batches after the first; ``None`` where the engine cannot run the source."""
        times: list[float] = []
        try:
            run = self._open(engine)
        except InputError as error:
            self.chooser.say(str(error))
            return None

        def timed(x: Any) -> list[np.ndarray]:
            began = time.perf_counter()
            out = run(x)
            times.append((time.perf_counter() - began) / len(x))
            return out

        activations_of(self.source, self.inputs, timed)
        return float(np.median(times[1:] or times))

    def _outputs(self, engine: str) -> list[np.ndarray]:
        return activations_of(self.source, self.inputs, self._open(engine))

    def _open(self, engine: str) -> Engine:
        return open_engine(engine, self.source, self.wanted, kept=graphs_of(self.source, self.wanted, store=self.chooser.store, engine=engine))


def told(choices: Mapping[str, Choice]) -> tuple[str, str]:
    """Return engines and precisions of a run for its report.

    >>> told({"a": Choice(), "b": Choice()})[1]
    'float32, whole activations stored as float16'
    """
    engines = {name: described(c.engine) for name, c in choices.items()}
    precisions = {name: ENGINES[c.engine][2] for name, c in choices.items()}
    return _joined(engines, described(PLAIN)), f"{_joined(precisions, 'float32')}, whole activations stored as float16"


def _joined(words: Mapping[str, str], alone: str) -> str:
    if len(set(words.values())) < 2:
        return next(iter(words.values()), alone)
    return ", ".join(f"{name}: {word}" for name, word in words.items())


def _candidates() -> list[str]:
    """ONNX Runtime is slower than OpenVINO wherever both were measured, and costs seconds to convert for."""
    here = available()
    return [e for e in here if e != "onnxruntime" or "openvino" not in here]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of rows (n, ...), of which the mean row of ``b`` is taken from both; 1 where both are nothing but it."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))  # why: float32 sums over a whole activation err by 1e-5
    centre = b.mean(axis=0)
    a, b = a - centre, b - centre
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    alive = norms > 0
    return float(np.mean(np.where(alive, np.einsum("nd,nd->n", a, b) / np.where(alive, norms, 1), 1.0)))
