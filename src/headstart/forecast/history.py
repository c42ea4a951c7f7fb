"""The history: what past runs on this machine measured, and what a benchmark measured beforehand.

One JSON object a line, appended in one write, so that several processes may write at once and a torn line costs itself alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

HISTORY_FILE = "history.jsonl"
SHIPPED_FILE = "past_tasks.jsonl"


@dataclass(frozen=True)
class Past:
    """What one source reached on one past task. Scores are 0..1, higher is better, in the task's metric; ``None`` is what was not measured.

    Parameters
    ----------
    task : digest of the task's inputs and targets; rows of one task share it
    source, weights : the source's name, and the SHA-256 of its weights
    n, classes : labelled cases that were trained on, and classes (0: numbers)
    frozen : cross-validated score of a head on frozen features
    fine_tuned : score after fine-tuning, on cases that no training saw
    baseline : cross-validated score without transfer
    anchor : score of an anchor run (default fine-tuning in :data:`ANCHOR_FOLDS` folds of the training cases), measured apart from ``fine_tuned``
    parameters, family, trained_on, modality : what the source says of itself
    """

    task: str
    source: str
    weights: str
    n: int
    classes: int
    frozen: float
    fine_tuned: float | None = None
    baseline: float | None = None
    anchor: float | None = None
    parameters: int = 0
    family: str = ""
    trained_on: str = ""
    modality: str = "image"

    @property
    def key(self) -> str:
        """What tells one source from another: its weights, or its name where they have no hash."""
        return self.weights or self.source


def record(root: Path, rows: Sequence[Past]) -> bool:
    """Append rows to the history in that folder; return whether it could be written. Nothing depends on it, so that a full disk costs the history alone.

    >>> import tempfile
    >>> here = Path(tempfile.mkdtemp())
    >>> record(here, [Past("t", "s", "ab", 200, 2, 0.8)]), [row.frozen for row in past(here)]
    (True, [0.8])
    """
    text = "".join(json.dumps(dataclasses.asdict(row), allow_nan=False) + "\n" for row in rows)
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / HISTORY_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:
        return False
    try:
        # why the newline in front where it lacks: a line that a kill tore must not swallow the next one
        return os.write(handle, (_torn(root / HISTORY_FILE) + text).encode()) > 0 if text else True
    except OSError:
        return False
    finally:
        os.close(handle)


def past(root: Path) -> list[Past]:
    """Return the rows of that folder's history; of equal task and source the last counts.

    Lines that are damaged, or that another version wrote, are passed over, and a folder without a history has no rows.
    """
    try:
        text = (root / HISTORY_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return _rows(text)


def shipped() -> list[Past]:
    """Return the rows that come with the package: real image tasks with about 200 training images, measured by ``benchmarks/collect.py``."""
    return _rows(files("headstart.forecast").joinpath(SHIPPED_FILE).read_text(encoding="utf-8"))


def _torn(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return ""
        file.seek(size - 1)
        return "" if file.read(1) == b"\n" else "\n"


def _rows(text: str) -> list[Past]:
    found: dict[tuple[str, str], Past] = {}
    for line in text.splitlines():
        row = _row(line)
        if row is not None:
            found.pop((row.task, row.key), None)
            found[row.task, row.key] = row
    return list(found.values())


def _row(line: str) -> Past | None:
    try:
        plain = json.loads(line)
    except ValueError:
        return None
    names = {f.name for f in dataclasses.fields(Past)}
    if not isinstance(plain, dict) or not set(plain) <= names:
        return None
    try:
        row = Past(**plain)
    except TypeError:
        return None
    return row if _is_sound(row) else None


def _is_sound(row: Past) -> bool:
    texts = (row.task, row.source, row.weights, row.family, row.trained_on, row.modality)
    counts = (row.n, row.classes, row.parameters)
    scores: tuple[Any, ...] = (row.frozen, *(v for v in (row.fine_tuned, row.baseline, row.anchor) if v is not None))
    return (
        all(isinstance(v, str) for v in texts)
        and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in counts)
        and row.n > 0
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) and 0.0 <= v <= 1.0 for v in scores)
    )
