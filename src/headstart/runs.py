"""A run's folder: whose it is, whether it is finished, and what to write down so that it can be repeated."""

from __future__ import annotations

import errno
import hashlib
import json
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from headstart.adaptation import ADAPTATION_FILE
from headstart.core import InputError, Inspection, Source, Task
from headstart.result import RESULT_FILE, Provenance

RUN_FILE, NEW_FILE, LOCK_FILE = "run.json", "run.new", ".lock"
OWN_FILES = frozenset({RUN_FILE, NEW_FILE, LOCK_FILE})  # that a folder just taken may hold
LEAST_BUDGET = 10.0
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_budget(budget: str | float) -> float:
    """Return a budget in seconds.

    >>> parse_budget("5m"), parse_budget("1h30m"), parse_budget(90)
    (300.0, 5400.0, 90.0)
    """
    text = str(budget).strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smh]?)", text)
    if not parts or "".join(a + b for a, b in parts) != re.sub(r"\s", "", text):
        raise InputError(f"The budget {budget!r} is not a time. Write seconds, minutes or hours, such as 90s, 5m or 2h.")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if seconds < LEAST_BUDGET:
        raise InputError(f"The budget {budget!r} is {seconds:g} seconds; at least {LEAST_BUDGET:g} are needed to measure anything. Try 5m.")
    return seconds


def checked_margin(margin: float) -> float:
    """Return the smallest gain that matters; raise ``InputError`` where it is no gain in a score of 0..1.

    >>> checked_margin(0.02)
    0.02
    """
    if not 0.0 <= margin < 1.0:
        raise InputError(f"The margin is {margin:g}; the smallest gain that matters lies between 0 and 1, in balanced accuracy or R2. For 2 points write 0.02.")
    return float(margin)


@dataclass(frozen=True)
class Run:
    """The folder of one run."""

    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its result is written."""
        return (self.folder / RESULT_FILE).exists()

    @property
    def adapted(self) -> bool:
        """Whether the result of an adaptation is written."""
        return (self.folder / ADAPTATION_FILE).exists()

    def claim(
        self,
        task: Task,
        inspection: Inspection,
        sources: Sequence[str],
        *,
        budget: float,
        seed: int,
        margin: float,
        engine: str,
        methods: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        terms: Mapping[str, Any] | None = None,
        bounds: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the folder for this run, or go on with it. Raises ``InputError`` when it holds something else or cannot be written."""
        mine: dict[str, Any] = {
            "task": task.target.name,
            "data": data_sha256(task, inspection),
            "sources": list(sources),
            "budget": budget,
            "seed": seed,
            "margin": margin,
            "engine": engine,
            "methods": methods,
            "settings": settings,
            "terms": terms,
            "bounds": bounds,
        }
        self.take(mine)

    def take(self, mine: Mapping[str, Any]) -> None:
        """Take the folder for the run that those plain values tell from any other, or go on with it. Raises ``InputError`` as :meth:`claim` does."""
        mine = {**mine, "headstart": version("headstart")}
        path = self.folder / RUN_FILE
        try:
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                foreign = any(found.name not in OWN_FILES for found in self.folder.iterdir())
                if foreign and not path.exists():
                    raise InputError(f"{self.folder} is not empty and holds no run of Headstart. Choose another --out, or empty it.")
                with self.alone():
                    self._take(path, mine)
            self._same(mine, json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written ({error.strerror}). Choose another --out, or free space and rights there.") from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder: of several processes that run the same command one at a time is inside."""
        with FileLock(self.folder / LOCK_FILE):
            yield

    def _take(self, path: Path, mine: Mapping[str, Any]) -> None:
        """Write whose the folder is, unless another process has just done so."""
        if not path.exists():
            scratch = self.folder / NEW_FILE
            scratch.write_text(json.dumps(mine, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            scratch.replace(path)

    def _same(self, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        different = [key for key in mine if mine[key] != theirs.get(key)]
        if different:
            key = different[0]
            now = "changed" if key == "data" else f"{theirs.get(key)!r} there, {mine[key]!r} here"
            raise InputError(f"{self.folder} holds another run (its {key}: {now}). Choose another --out, or remove that folder.")


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn a full disk, wherever it is met, into one line that says how to go on."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError

    try:
        yield
        return
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
    except (RuntimeError, StorageInternalError, DBAPIError) as error:
        # why: SQLite (through SQLAlchemy and Optuna) and safetensors report a full disk in words only
        words = f"{error!r} {error.__cause__!r}"
        if "disk is full" not in words and "No space left" not in words:
            raise
    free = shutil.disk_usage(folder).free if folder.exists() else 0
    raise InputError(f"{folder}: the disk is full ({free / 2**20:.1f} MiB free). Free space and run the same command again; what is finished is kept.")


def data_sha256(task: Task, inspection: Inspection) -> str:
    """Hash every input's bytes with its label and group, in order."""
    groups = [None] * len(task.target) if task.target.groups is None else [str(g) for g in task.target.groups]
    labels = [None] * len(task.target) if task.target.y is None else [str(v) for v in task.target.y]
    rows = list(zip(inspection.digests, labels, groups, strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def provenance(
    task: Task, inspection: Inspection, sources: Mapping[str, Source], *, command: str, seed: int, budget: float, made_by: tuple[str, str]
) -> Provenance:
    """Return how to repeat the run; ``made_by`` says which engine made the features, and of which dtype."""
    return provenance_of(data_sha256(task, inspection), sources, command=command, seed=seed, budget=budget, made_by=made_by)


def provenance_of(data: str, sources: Mapping[str, Source], *, command: str, seed: int, budget: float, made_by: tuple[str, str]) -> Provenance:
    """Return how to repeat the run whose data have that hash; otherwise as :func:`provenance`."""
    import torch

    packages = ("headstart", "torch", "torchvision", "timm", "scikit-learn", "numpy", "pillow", "optuna")
    versions = {"python": platform.python_version(), **{p: version(p) for p in packages}}
    weights = {name: source.weights_sha256 for name, source in sources.items()}
    return Provenance(command, seed, f"{budget:g} s", versions, data, weights, *made_by, torch.get_num_threads())
