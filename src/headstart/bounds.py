"""What the final model may take: bounds on its size, memory and latency, as a user writes them."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from headstart.core import InputError
from headstart.fronts import Footprint, bytes_told, seconds_told

BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\N{MICRO SIGN}s": 1e-6}
FLAGS = {"size": "--max-size", "memory": "--max-memory", "latency": "--max-latency"}
EXAMPLES = {"size": "20MB", "memory": "500MB", "latency": "20ms"}
WORDS = {"size": "on disk", "memory": "of memory", "latency": "for an input"}


class Refusal(NamedTuple):
    """Why a candidate is left out: by which share it passes the bound that it passes by most, and that in words."""

    excess: float
    why: str


@dataclass(frozen=True)
class Bounds:
    """Bounds on the final model. A candidate that breaks one is not tried, the baseline's among them. ``Bounds()`` bounds nothing and asks for the front alone.

    Parameters
    ----------
    size : most bytes that prediction needs on disk, such as "20MB" (10**6), "20MiB" (2**20) or a number; ``None``, the default: any. Weights of the stages
        that prediction runs, and the head
    memory : most bytes at the peak of predicting one input: those weights, what activations are alive at once, and the head; ``None``, the default: any.
        What the interpreter, the libraries and their kernels take for themselves is not counted
    latency : most seconds for one input, such as "20ms" or 0.02: the median of inputs one by one, on this machine, on PyTorch, from a decoded image, a
        tokenised text or a row to the output; ``None``, the default: any

    Raises
    ------
    InputError
        a bound that cannot be read, or is not above 0, in one line.

    Examples
    --------
    >>> Bounds(size="20MB", latency="20ms").limits
    {'size': 20000000.0, 'latency': 0.02}
    """

    size: str | float | None = None
    memory: str | float | None = None
    latency: str | float | None = None

    def __post_init__(self) -> None:
        _ = self.limits  # why: a bound that cannot be read is told before any file is

    @property
    def limits(self) -> dict[str, float]:
        """The bounds that were given, in bytes and seconds."""
        return {name: _number(name, value) for name in FLAGS if (value := getattr(self, name)) is not None}

    def refusal(self, taken: Footprint, *, part: str = "") -> Refusal | None:
        """Say by how much and how a footprint, or that of a ``part``, breaks the bounds; ``None`` where it keeps them.

        >>> Bounds(size="10MB").refusal(Footprint(20_000_000, 1, 1.0))
        Refusal(excess=1.0, why='20 MB on disk, --max-size is 10 MB')
        """
        broken = {name: limit for name, limit in self.limits.items() if getattr(taken, name) > limit}
        if not broken:
            return None
        why = "; ".join(f"{written(name, getattr(taken, name))} {WORDS[name]}{part}, {FLAGS[name]} is {written(name, limit)}" for name, limit in broken.items())
        return Refusal(max(getattr(taken, name) / limit - 1.0 for name, limit in broken.items()), why)

    @property
    def superlative(self) -> str:
        """What the model is that comes nearest to the bounds: "smallest", "fastest", or where both are bounded "nearest"."""
        named = {"fastest" if name == "latency" else "smallest" for name in self.limits}
        return named.pop() if len(named) == 1 else "nearest"

    def plain(self) -> dict[str, float | None]:
        """Return the bounds as plain values, for what tells one run from another."""
        return {f.name: self.limits.get(f.name) for f in dataclasses.fields(self)}


def written(name: str, value: float) -> str:
    """Return a size, memory or latency in words.

    >>> written("latency", 0.02)
    '20 ms'
    """
    return seconds_told(value) if name == "latency" else bytes_told(value)


def _number(name: str, value: str | float) -> float:
    """Return a bound in bytes or seconds."""
    units: dict[str, float] = dict(SECONDS if name == "latency" else BYTES)
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([a-z\N{MICRO SIGN}]*)", str(value).strip().lower())
    if found is None or found[2] not in units or not 0 < float(found[1]) * units[found[2]] < math.inf:
        what = "a time above 0" if name == "latency" else "a number of bytes above 0"
        raise InputError(f"{FLAGS[name]} {value} is not {what}. Write it like {EXAMPLES[name]}.")
    return float(found[1]) * units[found[2]]
