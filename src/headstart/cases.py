"""Which inputs a run trained on and which it held out, as a table on disk."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Case:
    """An input of the run as it was divided: an image's path, or a text. ``group`` is a number that cases which are never split share, or empty."""

    input: str
    target: str
    part: Literal["train", "held out"]
    group: str = ""


def write_cases(cases: Sequence[Case], path: Path) -> None:
    """Write cases as CSV, in order; nothing where there are none (arrays in memory, rows of a table)."""
    if cases:
        with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            csv.writer(file).writerows([[f.name for f in dataclasses.fields(Case)], *(dataclasses.astuple(case) for case in cases)])


def read_cases(path: Path) -> tuple[Case, ...]:
    """Read what :func:`write_cases` wrote; none where it wrote nothing."""
    if not path.exists():
        return ()
    csv.field_size_limit(2**27)
    with path.open(newline="", encoding="utf-8", errors="surrogatepass") as file:
        return tuple(Case(**row) for row in csv.DictReader(file))  # type: ignore[arg-type]
