"""Where the features of data-level methods come from: the place of a probe, so that what they gain over one is their own doing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headstart.core import Source
from headstart.methods.features.probe import Probe
from headstart.methods.method import Arm, Closed, Level, View, knob


@dataclass(frozen=True)
class OnFeatures(Closed):
    """A head on frozen features; ``back`` and ``span`` as in :class:`~headstart.methods.features.probe.Probe`, after whose best place a run sets them."""

    arm: ClassVar[Arm] = "frozen"
    level: ClassVar[Level] = "data"

    back: int = knob(0, choices=(0, 1, 2, 3))
    span: int = knob(1, choices=(1, 2, 4))

    def view(self, source: Source | None) -> View:
        return Probe(back=self.back, span=self.span).view(source)
