"""Similarity of a source to a target, before any training, in four views; ``MEASURES`` lists every measure by name.

Facts about architectures, the fourth view, need the network and the raw inputs: see ``similarity.architecture``.
"""

from __future__ import annotations

from headstart.similarity import data, feature, task
from headstart.similarity.measure import Evidence, Measure

__all__ = ["MEASURES", "Evidence", "Measure"]

MEASURES: dict[str, Measure] = {measure.name: measure for measure in (*data.MEASURES, *feature.MEASURES, *task.MEASURES)}
