"""Ways to transfer, one file each; ``METHODS`` is the one table of them."""

from __future__ import annotations

from headstart.methods.features.probe import Probe, ProbeRegressor
from headstart.methods.method import Closed, Knob, Method, View, knob, space
from headstart.methods.model.fine_tune import FineTune
from headstart.methods.scratch import Scratch
from headstart.methods.simple import SIMPLE, SimpleImage, SimpleTable, SimpleText

METHODS: dict[str, tuple[type[Closed | Method], ...]] = {
    "simple": (SimpleImage, SimpleText, SimpleTable),
    "scratch": (Scratch,),
    "frozen + head": (Probe, ProbeRegressor),
    "fine-tune": (FineTune,),
}

__all__ = [
    "METHODS",
    "SIMPLE",
    "Closed",
    "FineTune",
    "Knob",
    "Method",
    "Probe",
    "ProbeRegressor",
    "Scratch",
    "SimpleImage",
    "SimpleTable",
    "SimpleText",
    "View",
    "knob",
    "space",
]
