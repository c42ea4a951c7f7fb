"""What fine-tuning each source will reach on a target, said before it is done, with an interval that holds on new targets.

The score of frozen features and a head is measured, so it is no forecast. A fine-tuned score is promised only after one anchor run: one source, fine-tuned
in three folds. Past tasks teach by how much sources differ from the anchor and how far such forecasts err.
"""

from __future__ import annotations

from headstart.forecast.conformal import quantile_over_tasks, share_below
from headstart.forecast.history import Past, past, record, shipped
from headstart.forecast.predict import ANCHOR_FOLDS, Anchor, Forecast, Known, forecast
from headstart.forecast.prior import published

__all__ = [
    "ANCHOR_FOLDS",
    "Anchor",
    "Forecast",
    "Known",
    "Past",
    "forecast",
    "past",
    "published",
    "quantile_over_tasks",
    "record",
    "share_below",
    "shipped",
]
