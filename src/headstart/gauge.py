"""The gauge: what a candidate would take where it serves, before any of its folds is run, and which candidates the user's bounds leave out.

The cheap comes first: weights are counted exactly, then one input runs through the network, and only then is a closed-form head fitted, once, on the
training part, as the shipped one would be. What was found lies in the run's folder, so that a run that goes on decides by the same numbers.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.activations.engines import Outputs
from headstart.activations.peak import peak_bytes, weights_bytes
from headstart.bench import Bench
from headstart.bounds import Bounds, Refusal
from headstart.core import Backbone, Net
from headstart.fronts import Footprint, front
from headstart.learner import Candidate
from headstart.ledger import Ledger
from headstart.methods.method import Closed
from headstart.modality import door
from headstart.search import Arena, Search
from headstart.train import OutOfTime

FOLDER = "footprints"
CASES = 16  # inputs that are timed one by one
WARM, FEWEST, MOST, ENOUGH = 2, 7, 32, 1.0  # runs that are not counted, that are made at least and at most, and seconds from which no more are begun
NOTHING = Footprint(0, 0, 0.0)
IDENTITY = re.compile(rb"\d{9,}")  # addresses of objects, by which skops names its parts


@dataclass
class Gauge:
    """Measures candidates on one arena, for models fitted on ``rows``; ``kept`` is where what was measured is written down.

    ``size``: bytes of the weights (parameters and buffers) of those stages that prediction runs, and of the head: a linear layer of a net, or a scikit-learn
    model as skops writes it. A tokenizer and the description beside them are not counted.
    ``memory``: those bytes, and the most bytes of activations that are alive at once while one input runs through (:mod:`headstart.activations.peak`); of
    texts the longest of 16 training cases.
    ``latency``: median seconds of 16 training cases one by one, on PyTorch in float32 with the threads of the run: the network, measured once for each
    architecture and cut, and the head. Opening, decoding, resizing and tokenising an input is not counted; hand-made features are.
    """

    bounds: Bounds
    arena: Arena
    rows: np.ndarray
    kept: Ledger
    _twins: dict[str, Backbone] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, bounds: Bounds, bench: Bench, folder: Path) -> Gauge:
        """Return the gauge of a bench, which its search heeds from now on; what was measured lies in the run's ``folder``, and the time it took counts."""
        gauge = cls(bounds, bench.arena, bench.train, Ledger(folder / FOLDER))
        bench.search.sieve = gauge
        bench.clock.spent += gauge.kept.seconds()
        return gauge

    def refusal(self, candidate: Candidate, *, deadline: float) -> Refusal | None:
        """Say why the candidate breaks the bounds, or ``None``; a network that breaks them is neither run nor given a head. Raises ``OutOfTime``."""
        net, headless = self._net(candidate), isinstance(candidate.method, Closed)
        part = " before its head" if headless else ""
        counted = NOTHING if net is None else Footprint(_saved(net), weights_bytes(net), 0.0)
        found = self.bounds.refusal(counted, part=part) or self.bounds.refusal(self._network(candidate, net, deadline=deadline), part=part)
        return found or self.bounds.refusal(self.footprint(candidate, deadline=deadline))

    def footprint(self, candidate: Candidate, *, deadline: float) -> Footprint:
        """Return what the model would take that is fitted with this candidate on the training part. Raises ``OutOfTime``."""
        below = self._network(candidate, self._net(candidate), deadline=deadline)
        if not isinstance(candidate.method, Closed):
            return below
        key = {"head": candidate.describe(), "seed": self.arena.seed, "cases": CASES}
        head = self._measured(key, lambda: self._head(candidate, deadline=deadline), deadline=deadline)
        return Footprint(below.size + head.size, below.memory + head.memory, below.latency + head.latency)

    def _measured(self, key: dict[str, Any], measure: Callable[[], Footprint], *, deadline: float) -> Footprint:
        """Return what is written down under that key, or where there is time for it measure it and write it down."""

        def make() -> np.ndarray:
            if time.monotonic() > deadline:
                raise OutOfTime
            return np.array(dataclasses.astuple(measure()), dtype=np.float64)

        size, memory, latency = self.kept.outcome(key, make)[0].tolist()
        return Footprint(int(size), int(memory), latency)

    def _network(self, candidate: Candidate, net: nn.Module | None, *, deadline: float) -> Footprint:
        """Return what comes before a head takes: the network, hand-made features, or nothing."""
        view, source = candidate.served, candidate.source
        if net is None and view.kind not in {"pixels", "handmade"}:
            return NOTHING
        whole = not isinstance(candidate.method, Closed)
        about = {"kind": "net" if whole and source is not None else view.kind, "cuts": () if whole else view.cuts, "side": view.side}
        weights = self._architecture(candidate) if source is None else [source.name, source.weights_sha256]
        key = {"network": weights, "classes": self.arena.classes, "cases": CASES, **about}
        return self._measured(key, lambda: self._simple(view.kind) if net is None else self._run(candidate, net), deadline=deadline)

    def _net(self, candidate: Candidate) -> nn.Module | None:
        """Return what runs on an input before a scikit-learn head, or, of a candidate that is trained, the whole net; it shares the source's weights."""
        method, source, view = candidate.method, candidate.source, candidate.served
        if isinstance(method, Closed):
            if source is None or view.kind not in {"pooled", "unit", "raw"}:
                return None
            return Outputs(source.backbone, [("raw" if view.kind == "raw" else "pooled", cut) for cut in view.cuts])
        backbone = self._twin(candidate) if source is None else source.backbone
        with torch.random.fork_rng(devices=[]):  # why: first weights of the head are drawn, and nothing else may notice
            return Net(backbone.above(0), nn.Linear(backbone.dim, max(1, self.arena.classes))).eval()

    def _twin(self, candidate: Candidate) -> Backbone:
        name = json.dumps(self._architecture(candidate), sort_keys=True)
        if name not in self._twins:
            self._twins[name] = candidate.method.twin(self.arena.seed)  # type: ignore[union-attr]
        return self._twins[name]

    def _architecture(self, candidate: Candidate) -> Any:
        twin = getattr(candidate.method, "twin", None)
        return None if twin is None else twin.recipe

    def _run(self, candidate: Candidate, net: nn.Module) -> Footprint:
        inputs = self._inputs(candidate)
        with torch.inference_mode():
            seconds = _median(lambda i: net(inputs[i]), len(inputs))
        longest = max(inputs, key=lambda x: x.numel())
        return Footprint(_saved(net), weights_bytes(net) + peak_bytes(net, longest), seconds)

    def _inputs(self, candidate: Candidate) -> list[Tensor]:
        """Return training cases as the network takes them, each a batch of its own."""
        view, source, views = candidate.served, candidate.source, self.arena.views
        if view.kind in {"image", "input"}:
            made = [torch.from_numpy(np.asarray(views.array(view)[[row]])) for row in self._cases()]
            return [x.float() if x.is_floating_point() else x for x in made]
        if source is None:
            raise ValueError(f"no network takes the view {view}")
        of, backbone = door(views.modality), source.backbone
        return [of.collate([of.encode(views.items[row], backbone)], backbone) for row in self._cases()]

    def _simple(self, kind: str) -> Footprint:
        """Return what features of a decoded image take: time alone."""
        from headstart.modality import simple
        from headstart.modality.image import read

        images = [read(self.arena.views.items[row]) for row in self._cases()]
        make = simple.pixels if kind == "pixels" else simple.handmade
        return Footprint(0, 0, _median(lambda i: make([images[i]]), len(images)))

    def _head(self, candidate: Candidate, *, deadline: float) -> Footprint:
        """Fit the scikit-learn model on the training part and return what it takes: its bytes count on disk and in memory, its input in memory."""
        fitted = self.arena.fitted(candidate, self.rows, deadline=deadline)
        whole = self.arena.views.array(candidate.served)
        cases = [np.asarray(whole[[row]]) for row in self._cases()]
        size = _head_bytes(fitted.model)
        given = 0 if cases[0].dtype == object else cases[0].nbytes
        untimed = Footprint(size, size + given, 0.0)
        if self.bounds.refusal(untimed) is not None:  # why: what is left out for its size need not be timed
            return untimed
        return dataclasses.replace(untimed, latency=_median(lambda i: fitted.output(cases[i]), len(cases)))

    def _cases(self) -> Sequence[int]:
        drawn: list[int] = np.random.default_rng(self.arena.seed).permutation(self.rows)[:CASES].tolist()
        return drawn


def measured_front(search: Search) -> dict[str, Any]:
    """Return the bounds of a search, and every finished trial with what its model takes, as a result keeps them; nothing where none was asked for."""
    gauge = search.sieve
    if not isinstance(gauge, Gauge):
        return {}
    done = [trial for trial in search.trials if trial.status == "complete"]
    taken = {t.number: gauge.footprint(search.candidates[t.number], deadline=math.inf) for t in done}
    return {"bounds": gauge.bounds.limits, "front": front({t.number: t.score for t in done}, taken)}


def _median(run: Callable[[int], Any], cases: int) -> float:
    """Return the median seconds of a run, over the cases in turn."""
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < WARM + FEWEST or (len(times) < WARM + MOST and time.perf_counter() - began < ENOUGH):
        start = time.perf_counter()
        run(len(times) % cases)
        times.append(time.perf_counter() - start)
    return float(np.median(times[WARM:]))


def _saved(module: nn.Module) -> int:
    """Return the bytes of the tensors that a module is saved as."""
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def _head_bytes(model: Any) -> int:
    """Return the bytes of a scikit-learn model as skops writes it, but for the archive's own and the addresses of objects, which differ from run to run."""
    import skops.io

    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(model))) as parts:
        return sum(len(IDENTITY.sub(b"0", parts.read(one))) if one.filename.endswith(".json") else one.file_size for one in parts.infolist())
