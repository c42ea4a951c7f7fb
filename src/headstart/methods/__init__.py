"""Ways to transfer, one file each; ``METHODS`` is the one table of them."""

from __future__ import annotations

from headstart.methods.features.probe import Probe
from headstart.methods.method import Closed, Knob, Method, View, knob, space
from headstart.methods.model.fine_tune import FineTune
from headstart.methods.scratch import Scratch, Simple

METHODS: dict[str, type[Closed | Method]] = {m.name: m for m in (Simple, Scratch, Probe, FineTune)}

__all__ = ["METHODS", "Closed", "FineTune", "Knob", "Method", "Probe", "Scratch", "Simple", "View", "knob", "space"]
