"""What a model takes where it serves, and which trials are not dominated: Pareto's front of score, size and latency. Only the standard library is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Footprint:
    """What one model takes where it serves; how each is measured: :mod:`headstart.gauge`.

    ``size`` is the bytes that prediction needs on disk, ``memory`` the peak bytes while one input is predicted, ``latency`` the seconds that one input takes.
    """

    size: int
    memory: int
    latency: float


@dataclass(frozen=True)
class FrontPoint:
    """A finished trial with its score and footprint; ``on_front`` where no other trial dominates it."""

    trial: int
    score: float
    size: int
    memory: int
    latency: float
    on_front: bool = True


def dominates(one: FrontPoint, other: FrontPoint) -> bool:
    """Whether ``one`` is nowhere worse than ``other`` in score, size and latency, and better in one of them.

    >>> dominates(FrontPoint(0, 0.9, 10, 0, 1.0), FrontPoint(1, 0.9, 10, 0, 2.0))
    True
    """
    pairs = ((one.score, other.score), (-one.size, -other.size), (-one.latency, -other.latency))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def front(scores: Mapping[int, float], footprints: Mapping[int, Footprint]) -> tuple[FrontPoint, ...]:
    """Return every trial that has a score and a footprint, by its number, the best score first and of equals the smaller; each says whether it is dominated.

    Memory is told and bounded, and is no side of the front: it is weights for the most part, as the size is.

    >>> light, heavy, wasteful = Footprint(1, 5, 0.1), Footprint(9, 5, 0.1), Footprint(10, 5, 0.1)
    >>> [(p.trial, p.on_front) for p in front({0: 0.7, 1: 0.9, 2: 0.8}, {0: light, 1: heavy, 2: wasteful})]
    [(1, True), (2, False), (0, True)]
    """
    known = ((number, score, footprints[number]) for number, score in scores.items() if number in footprints)
    points = sorted((FrontPoint(n, s, f.size, f.memory, f.latency) for n, s, f in known), key=lambda p: (-p.score, p.size, p.latency, p.trial))
    kept: list[FrontPoint] = []
    told: list[FrontPoint] = []
    for point in points:  # why in this order: whoever dominates a point comes before it
        alone = not any(dominates(other, point) for other in kept)
        kept += [point] if alone else []
        told.append(FrontPoint(point.trial, point.score, point.size, point.memory, point.latency, alone))
    return tuple(told)


def bytes_told(size: float) -> str:
    """Return bytes in words, by thousands.

    >>> bytes_told(13_484_032), bytes_told(980), bytes_told(49_500)
    ('13.5 MB', '980 B', '49.5 kB')
    """
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.3g} {unit}" if size < 1000 * one else f"{size / one:,.0f} {unit}"
    return f"{size:.0f} B"


def seconds_told(seconds: float) -> str:
    """Return a latency in words.

    >>> seconds_told(0.01234), seconds_told(2.5), seconds_told(0.00004)
    ('12.3 ms', '2.5 s', '0.04 ms')
    """
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def chosen(points: Sequence[FrontPoint]) -> tuple[FrontPoint, ...]:
    """Return those that are not dominated."""
    return tuple(point for point in points if point.on_front)
