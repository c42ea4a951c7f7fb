"""Views: the numbers that methods learn from, each made once.

A method names a view (pixels, pooled activations, raw activations at a cut, small images); this room makes it from the inputs, through the
activation store, so that neither another trial nor another run computes it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headstart.activations import Activations, extract
from headstart.activations.costs import record
from headstart.activations.gain import stored_cuts
from headstart.activations.store import Rows, Store
from headstart.core import InputError, Preprocess, Source
from headstart.methods.method import View

SHARD = 256


def cuts_of(source: Source) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the cuts at which a source's activations are kept pooled, all of them, and those at which they are kept whole, to train above."""
    return tuple(range(1, len(source.stages) + 1)), stored_cuts(source)


@dataclass
class Views:
    """The views of one list of inputs; rows keep the order of ``items``.

    ``progress`` is called with the number of inputs newly finished; it may raise to stop the work, and what is stored stays stored. ``engine`` names
    what runs a source's frozen stages, one of ``activations.engines.ENGINES``.
    """

    items: Sequence[Any]
    digests: Sequence[str]
    sources: Mapping[str, Source]
    store: Store
    modality: str = "image"
    progress: Callable[[str, int], None] | None = None
    engine: Callable[[Source], str] = lambda source: "torch"
    computed: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)
    _activations: dict[str, Activations] = field(default_factory=dict, repr=False)
    _lent: dict[str, Views] = field(default_factory=dict, repr=False)

    def prime(self, name: str) -> None:
        """Run the source's frozen stages once over all inputs: every cut pooled, the tuning cuts whole."""
        if name in self._activations:
            return
        source = self.sources[name]
        began = time.monotonic()
        cuts, raw = cuts_of(source)
        engine = self.engine(source)
        done = extract(source, self.items, digests=self.digests, cuts=cuts, raw=raw, store=self.store, engine=engine, progress=self._tick(name))
        self._activations[name] = done
        self.computed[name] = done.computed
        self.seconds[name] = time.monotonic() - began
        record(self.store.root, source.weights_sha256, seconds=self.seconds[name], inputs=done.computed)

    def array(self, view: View) -> Any:
        """Return the view of all inputs, (n, ...): an array, or for whole activations rows on disk that are indexed like one."""
        if view not in self._made:
            self._made[view] = self._make(view)
        return self._made[view]

    def of_rows(self, view: View, rows: np.ndarray) -> np.ndarray:
        """Return the view of those inputs alone, (len(rows), ...), in memory; copies are made of these and of no other."""
        own = np.asarray(self.array(view.plain)[rows])
        if not view.copies:
            return own
        copies = self._copies(view, [self.items[row] for row in rows], [self.digests[row] for row in rows])
        return np.stack([own, *(np.asarray(look[:]) for look in copies)], axis=1)

    def widths(self, view: View) -> tuple[int, ...]:
        """Return how many columns of a pooled view come from each of its stages."""
        self.prime(view.source or "")
        return tuple(int(self._activations[view.source or ""].pooled[cut].shape[1]) for cut in view.cuts)

    def _make(self, view: View) -> Any:
        if view.kind == "items":
            rows = np.empty(len(self.items), dtype=object)
            rows[:] = list(self.items)
            return rows
        if view.kind in {"pixels", "handmade"}:
            return self._simple(view.kind)
        if view.kind == "image":
            return self._images(view.side)
        if view.source is None or view.source not in self.sources:
            raise InputError(f"The view {view} names no source of this run. Sources: {', '.join(self.sources) or 'none'}.")
        if view.kind == "input":
            return self._inputs(self.sources[view.source], view.side)
        self.prime(view.source)
        activations = self._activations[view.source]
        if view.copies:
            return self._with_copies(view)
        if view.kind == "raw":
            return activations.raw[view.cuts[0]]
        return _side_by_side([activations.pooled[c] for c in view.cuts], unit=view.kind == "unit")

    def lent(self, view: View) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the view (m, d) of the cases that its source lends, and their class codes or numbers (m,), ``None`` where they have none."""
        source = self.sources[str(view.source)]
        if source.data is None:
            raise ValueError(f"{source.name} lends no cases")
        if source.name not in self._lent:
            from headstart.modality import door

            items = list(source.data.x)
            digests = [door(self.modality).digest(item) for item in items]
            backbone, weights = source.backbone, source.weights_sha256
            # why no tuning cuts: nothing is trained on whole activations of what is lent
            lean = replace(source, tune_cuts=(), opener=lambda: backbone, digest=lambda: weights)
            self._lent[source.name] = Views(items, digests, {source.name: lean}, self.store, self.modality, self.progress, self.engine)
        theirs = self._lent[source.name].array(view.plain)
        return theirs, None if source.data.y is None else np.asarray(source.data.y)

    def _with_copies(self, view: View) -> Any:
        """Return (n, 1 + k, ...): activations of each input and of its copies."""
        looks = [self.array(view.plain), *self._copies(view, self.items, self.digests)]
        return Looks(tuple(looks)) if view.kind == "raw" else np.stack(looks, axis=1)

    def _copies(self, view: View, items: Sequence[Any], digests: Sequence[str]) -> list[Any]:
        """Return k times (n, ...): activations of one copy after another of those inputs, each made once and stored like any other."""
        from headstart.modality.style import STYLES

        if view.kind not in {"pooled", "raw"}:
            raise ValueError(f"copies are looked at pooled or raw, not as {view.kind!r}")
        source = self.sources[str(view.source)]
        self.prime(source.name)
        began = time.monotonic()
        looks, whole = [], view.kind == "raw"
        cuts: dict[str, Any] = {"cuts": (), "raw": view.cuts} if whole else {"cuts": view.cuts}
        for i, policy in enumerate(view.copies):
            given = {"digests": digests, "store": self.store, "engine": self.engine(source), "progress": self._tick(f"{policy}: {source.name}"), **cuts}
            if set(policy.split("+")) & set(STYLES):
                given["palette"] = () if source.data is None else source.data.x
            done = extract(source, items, **given, view=1 + view.copies[:i].count(policy), policy=policy)
            looks.append(done.raw[view.cuts[0]] if whole else _side_by_side([done.pooled[c] for c in view.cuts], unit=False))
        self.seconds[source.name] += time.monotonic() - began
        return looks

    def _simple(self, kind: str) -> np.ndarray:
        from headstart.modality import simple

        make = simple.pixels if kind == "pixels" else simple.handmade
        return self._stored({"view": kind, **simple.version()}, lambda items: make(items), label=kind)

    def _images(self, side: int) -> np.ndarray:
        from headstart.modality.image import normalise, prepare, read

        preprocess = Preprocess(size=side, crop=1.0)

        def make(items: Sequence[Any]) -> np.ndarray:
            import torch

            pixels = torch.stack([prepare(read(item), preprocess) for item in items])
            return normalise(pixels, preprocess).contiguous().numpy().astype(np.float16)

        from headstart.modality import simple

        return self._stored({"view": "image", "side": side, **simple.version()}, make, label=f"{side} px images")

    def _inputs(self, source: Source, side: int) -> np.ndarray:
        """What the source takes at cut 0; of texts at most ``side`` tokens, or all of them where ``side`` is 0."""
        from headstart.modality import door

        of = door(self.modality)
        batch = of.collate([of.encode(item, source.backbone) for item in self.items], source.backbone)
        return np.asarray(batch[:, : side or None].numpy() if batch.ndim == 3 else batch.numpy())

    def _stored(self, fields: Mapping[str, Any], make: Callable[[Sequence[Any]], np.ndarray], *, label: str) -> np.ndarray:
        """Make what the store lacks, in shards, and read all rows back from it."""
        space = self.store.space(fields)
        missing = list(space.missing(self.digests))
        tick = self._tick(label)
        for i in range(0, len(missing), SHARD):
            rows = missing[i : i + SHARD]
            space.append([self.digests[r] for r in rows], make([self.items[r] for r in rows]))
            tick(len(rows))
        self.store.trim()
        return np.asarray(space.read(self.digests))

    def _tick(self, label: str) -> Callable[[int], None]:
        def tick(k: int) -> None:
            if self.progress is not None:
                self.progress(label, k)

        return tick


@dataclass(frozen=True)
class Looks:
    """Whole activations of inputs and of their copies, on disk: ``looks[rows]`` reads (len(rows), 1 + k, ...)."""

    parts: tuple[Rows, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.stack([np.asarray(part[rows]) for part in self.parts], axis=1)


def _side_by_side(parts: Sequence[Rows], *, unit: bool) -> np.ndarray:
    """Return (n, d) of rows (n, d_k) on disk, each read once into its place; with ``unit`` each part's rows have length 1, or 0 where all is 0."""
    out = np.empty((len(parts[0]), sum(part.shape[1] for part in parts)), dtype=np.float32)
    start = 0
    for part in parts:
        place = out[:, start : start + part.shape[1]]
        place[:] = np.asarray(part)
        if unit:
            norms = np.linalg.norm(place.astype(np.float64), axis=1, keepdims=True)
            place /= np.where(norms > 0, norms, 1.0)
        start += part.shape[1]
    return out
