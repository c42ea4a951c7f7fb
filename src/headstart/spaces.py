"""The joint space: sources x methods x what each method's fields declare x how training treats the data, as one space of named parameters.

Parameters of a method are named by it ("fine-tune.rate"), and count only where it is chosen.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import Trial as Asked

from headstart.core import Source
from headstart.journal import distribution
from headstart.keeping import Settings
from headstart.learner import Candidate, with_params
from headstart.methods.method import Closed, Knob, Method, space
from headstart.methods.needs import unmet

# options of training that are searched with every method of the loop, where the user has not set them; what they mean: keeping.Settings
DATA: dict[str, Knob] = {"mixup": Knob(choices=(0.0, 0.2)), "balance": Knob(choices=("weights", "sampling"))}
GRID_POINTS = 3  # of a range: its ends and its middle


@dataclass(frozen=True)
class Space:
    """What is searched: each of ``templates`` on each of ``sources`` that can bear it; ``settings`` are those of all training, ``classes`` 0 for numbers."""

    templates: Mapping[str, Closed | Method]
    sources: Mapping[str, Source]
    settings: Settings
    classes: int

    def knobs(self, method: str) -> dict[str, Knob]:
        """Return the knobs of a method by name, those of its training among them."""
        template = self.templates[method]
        if isinstance(template, Closed):
            return space(template)
        fixed = self.settings.changed() or {}
        free = {name: knob for name, knob in DATA.items() if name not in fixed and (self.classes or name != "balance")}
        return {**space(template), **free}

    def distributions(self, method: str | None = None) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution of each parameter: of those that count for that method, or of all."""
        named = [method] if method is not None else list(self.templates)
        whole = {"method": CategoricalDistribution(tuple(self.templates)), "source": CategoricalDistribution(tuple(self.sources))}
        return whole | {f"{m}.{name}": distribution(knob) for m in named for name, knob in self.knobs(m).items()}

    def suggest(self, trial: Asked) -> dict[str, Any]:
        """Let a trial choose a method, a source and, then, the parameters that count for them."""
        method = trial.suggest_categorical("method", tuple(self.templates))
        source = trial.suggest_categorical("source", tuple(self.sources))
        return {"method": method, "source": source} | {f"{method}.{name}": _suggested(trial, f"{method}.{name}", k) for name, k in self.knobs(method).items()}

    def candidate(self, params: Mapping[str, Any]) -> Candidate | None:
        """Return the candidate of those parameters; ``None`` where the source has not what the method needs."""
        name, source = params["method"], self.sources[params["source"]]
        template = self.templates[name]
        if unmet(template, source, classes=self.classes) or (isinstance(template, Method) and not source.tune_cuts):
            return None
        method = with_params(template, {k: params[f"{name}.{k}"] for k in space(template)})
        if isinstance(method, Closed):
            return Candidate(method, source)
        own = {k: params[f"{name}.{k}"] for k in self.knobs(name) if k not in space(template)}
        if source.modality == "text" and method.view(source).kind == "input":
            own.pop("mixup", None)  # why: token ids cannot be mixed
        settings = dataclasses.replace(self.settings, **own)
        return Candidate(method, source, None if settings == self.settings else settings)

    def params(self, candidate: Candidate) -> dict[str, Any] | None:
        """Return the parameters that name the candidate, what :meth:`candidate` undoes; ``None`` where it is not of this space."""
        name, source = candidate.method.name, candidate.source
        if type(self.templates.get(name)) is not type(candidate.method) or source is None or source.name not in self.sources:
            return None
        settings = candidate.settings or self.settings
        own = {k: getattr(candidate.method if k in space(candidate.method) else settings, k) for k in self.knobs(name)}
        if not all(_holds(knob, own[k]) for k, knob in self.knobs(name).items()):
            return None
        return {"method": name, "source": source.name} | {f"{name}.{k}": value for k, value in own.items()}

    def grid(self) -> Iterator[Candidate]:
        """Yield every candidate on a grid of three points for each range: of each method on each source one in turn, so that a grid cut short saw them all."""
        rows = [self._grid(method, source) for source in self.sources for method in self.templates]
        for turn in itertools.zip_longest(*rows):
            yield from (candidate for candidate in turn if candidate is not None)

    def _grid(self, method: str, source: str) -> Iterator[Candidate]:
        knobs = self.knobs(method)
        for values in itertools.product(*(knob.choices or _points(knob) for knob in knobs.values())):
            found = self.candidate({"method": method, "source": source} | {f"{method}.{k}": v for k, v in zip(knobs, values, strict=True)})
            if found is not None:
                yield found


def _suggested(trial: Asked, name: str, knob: Knob) -> Any:
    return trial.suggest_categorical(name, knob.choices) if knob.choices else trial.suggest_float(name, knob.low, knob.high, log=knob.log)


def _points(knob: Knob) -> tuple[float, ...]:
    shares = [i / (GRID_POINTS - 1) for i in range(GRID_POINTS)]
    return tuple(knob.low * (knob.high / knob.low) ** s if knob.log else knob.low + s * (knob.high - knob.low) for s in shares)


def _holds(knob: Knob, value: Any) -> bool:
    return value in knob.choices if knob.choices else knob.low <= value <= knob.high
