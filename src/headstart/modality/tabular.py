"""Tables: rows of numbers and categories become one vector each; the network for them is dense and small.

A row is a mapping of column to float (NaN where missing) or str; a missing category is left out of its row.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import MIN_PER_CLASS, Backbone, ColumnInput, InputError, Inspection, Task

HIDDEN = (64, 64)  # of the network that a table is transferred with: a thousand rows fit it within seconds
MOST_CATEGORIES = 50  # of one column; the rarer ones share no column and count as missing
SHOWN = 8
NOISE = 0.1  # of a column's deviation: below what rounding and measuring add in most tables, and well below what classes lie apart
ABSENT = 0.1  # of the values
Row = Mapping[str, float | str]


def digest(item: Row) -> str:
    """Return the SHA-256 of a row's columns and values, in any order of columns."""
    return hashlib.sha256(json.dumps(dict(item), sort_keys=True).encode()).hexdigest()


def inspect(task: Task, *, skip_unreadable: bool = False, progress: Callable[[int], None] | None = None) -> tuple[Task, Inspection]:
    """Count columns and missing values. Every row can be read, so ``skip_unreadable`` changes nothing.

    Raises
    ------
    InputError
        no row; a class with too few rows.
    """
    rows = list(task.target.x)
    if not rows:
        raise InputError(f"{task.target.name} has no rows. Give a table with a header and at least {2 * MIN_PER_CLASS} rows.")
    counts = Counter(str(v) for v in task.target.y or ()) if task.labels else Counter()
    for label, n in sorted(counts.items()):
        if n < MIN_PER_CLASS:
            raise InputError(f"Class {label!r} has only {n} row(s) in {task.target.name}; at least {MIN_PER_CLASS} are needed. Add rows, or leave it out.")
    numeric, categorical = columns_of(rows)
    gaps = sum(_is_missing(row.get(c)) for row in rows for c in (*numeric, *categorical))
    share = gaps / max(1, len(rows) * (len(numeric) + len(categorical)))
    facts = {"Columns": f"{len(numeric)} numeric, {len(categorical)} of categories", "Missing values": f"{share:.1%}" if gaps else "none"}
    if progress is not None:
        progress(len(rows))
    return task, Inspection(tuple(digest(row) for row in rows), facts)


def show(item: Row) -> tuple[str, str]:
    """Return no picture, and the row's first columns as text."""
    words = [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in item.items()]
    return "", ", ".join(words[:SHOWN]) + (", ..." if len(words) > SHOWN else "")


def encode(item: Row, backbone: Backbone) -> Tensor:
    """Return (d,) float32: numbers as they are (NaN where missing or not a number), 1 for the category that holds and 0 for the others."""
    return torch.tensor([_value(item, *feature) for feature in _features(backbone)], dtype=torch.float32)


def noisy(row: Tensor, backbone: Backbone, dice: np.random.Generator) -> Tensor:
    """Return an encoded row (d,) with normal noise of a tenth of each number's deviation; categories stay.

    The deviation is the one that the backbone standardises by, so that no case of the task decides another's noise.
    """
    columns = next((m for m in backbone.modules() if isinstance(m, Standardise)), None)
    if columns is None:
        raise InputError("This backbone does not say how far its columns vary, so no noise can be drawn for them. Choose another policy.")
    number = torch.tensor([len(feature) == 1 for feature in _features(backbone)])
    drawn = torch.from_numpy(dice.normal(scale=NOISE, size=len(row)).astype(np.float32))
    return row + torch.where(number, drawn * columns.deviation, torch.zeros(()))


def absent(row: Tensor, backbone: Backbone, dice: np.random.Generator) -> Tensor:
    """Return an encoded row (d,) in which a tenth of the numbers is missing and a tenth of the categories does not hold."""
    number = torch.tensor([len(feature) == 1 for feature in _features(backbone)])
    gone = torch.from_numpy(dice.random(len(row)) < ABSENT)
    return torch.where(gone, torch.where(number, torch.tensor(math.nan), torch.zeros(())), row)


def collate(encoded: Sequence[Tensor], backbone: Backbone) -> Tensor:
    """Return (n, d) float32."""
    return torch.stack(list(encoded))


def columns_of(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Return the numeric columns and those of categories, each in order of first appearance.

    >>> columns_of([{"age": 3.0, "town": "Ulm"}, {"age": 4.0}])
    (['age'], ['town'])
    """
    kinds: dict[str, bool] = {}
    for row in rows:
        for name, value in row.items():
            kinds[name] = kinds.get(name, True) and isinstance(value, float)
    return [c for c, numeric in kinds.items() if numeric], [c for c, numeric in kinds.items() if not numeric]


def features_of(rows: Sequence[Row]) -> list[list[str]]:
    """Return what the entries of an encoded row stand for: [column] for a number, [column, category] for one of the commonest categories."""
    numeric, categorical = columns_of(rows)
    features = [[c] for c in numeric]
    for column in categorical:
        counts = Counter(str(row[column]) for row in rows if column in row)
        features += [[column, value] for value, _ in sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))[:MOST_CATEGORIES]]
    return features


def network(features: Sequence[Sequence[str]], *, hidden: Sequence[int] = HIDDEN, seed: int) -> Backbone:
    """Return a dense network (each stage keeps its input beside what it adds) for rows with those features, with random weights.

    Output (n, d + sum(hidden)): the standardised columns themselves are part of the feature, so a head on it can fall back on them. Without hidden layers
    they are all of it.

    >>> network([["age"], ["town", "Ulm"]], seed=0)(torch.tensor([[3.0, 1.0]])).shape
    torch.Size([1, 130])
    """
    width = len(features)
    stages: OrderedDict[str, nn.Module] = OrderedDict() if hidden else OrderedDict(columns=Standardise(width))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for i, units in enumerate(hidden, 1):
            dense = Dense(width, units)
            # why: no cut lies behind the columns alone, for a head on them would be no transfer
            stages[f"hidden{i}"] = dense if i > 1 else nn.Sequential(OrderedDict(columns=Standardise(width), dense=dense))
            width += units
    names = tuple(dict.fromkeys(str(f[0]) for f in features))
    return Backbone(stages, dim=width, preprocess=ColumnInput(names, json.dumps([list(f) for f in features]))).eval()


class Standardise(nn.Module):
    """Subtract a mean and divide by a deviation per column; what is missing becomes 0, the mean."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, d: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("deviation", torch.ones(d))

    def learn(self, x: np.ndarray) -> None:
        """Take mean and deviation from rows (n, d), missing values aside; a column without spread keeps deviation 1."""
        seen = ~np.isnan(x)
        count = np.maximum(seen.sum(axis=0), 1)
        mean = np.where(seen, x, 0.0).sum(axis=0) / count
        deviation = np.sqrt((np.where(seen, x - mean, 0.0) ** 2).sum(axis=0) / count)
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1.0)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.nan_to_num((x - self.mean) / self.deviation).clamp(-LIMIT, LIMIT)


LIMIT = 10.0  # deviations: further out, one wrong entry would drive every hidden unit


class Dense(nn.Module):
    """Lay ``units`` rectified linear combinations beside the input."""

    def __init__(self, d: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d, units)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.relu(self.linear(x))], dim=1)


def _features(backbone: Backbone) -> list[list[str]]:
    if not isinstance(backbone.preprocess, ColumnInput):
        raise InputError(f"This backbone takes no rows of a table (its input is {type(backbone.preprocess).__name__}). Choose another source.")
    features: list[list[str]] = json.loads(backbone.preprocess.encoding)
    return features


def _value(row: Row, column: str, category: str | None = None) -> float:
    value = row.get(column)
    if category is not None:
        return float(str(value) == category)
    return value if isinstance(value, float) else math.nan


def _is_missing(value: float | str | None) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
