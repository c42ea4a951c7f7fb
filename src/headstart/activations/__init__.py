"""Activations of frozen stages: each input goes through them once, ever.

One pass serves every wanted cut. Inputs run in blocks whose bounds depend on the list of inputs alone, so that an interrupted run, which
computes the missing blocks later, gets the same bytes as one that was left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.activations.engines import ENGINES, Engine, Wanted, forward, open_engine, revision
from headstart.activations.store import BOUND, Rows, Space, Store
from headstart.core import Source, TextInput

BLOCK = 128
DECIDES = {"image": ("torch", "torchvision", "timm", "pillow"), "text": ("torch", "transformers", "tokenizers"), "tabular": ("torch",)}


@dataclass(frozen=True)
class Activations:
    """``pooled[cut]`` (n, d), float32, and ``raw[cut]`` (n, ...) are rows on disk; ``computed`` counts the inputs that had to run."""

    pooled: dict[int, Rows]
    raw: dict[int, Rows]
    computed: int


def extract(
    source: Source,
    items: Sequence[Any],
    *,
    digests: Sequence[str],
    cuts: Sequence[int],
    raw: Sequence[int] = (),
    store: Store,
    view: int = 0,
    policy: str = "crop+flip",
    palette: Sequence[Any] = (),
    engine: str = "torch",
    batch: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Activations:
    """Return the source's activations of all inputs, running only those that the store lacks.

    Parameters
    ----------
    items, digests : n inputs and the hashes of their bytes
    cuts : where pooled activations are wanted (mean over positions, float32)
    raw : where whole activations are wanted. They are kept in the narrowest dtype that errs by at most 2^-8 of a row's largest value (see
        ``store.narrowed``): float16, but where it overflows
    view : 0 is the input as it is; 1, 2, ... are augmented copies of it, each always the same (see ``modality.augment``) and stored apart
    policy : what makes the copies, see ``modality.augment.encode_view``; no matter for view 0
    palette : images of another domain, whose style a copy may take
    engine : what runs the stages, one of ``engines.ENGINES``; what another engine made is not taken for this one's
    batch : inputs per pass; above 32 a CPU gains nothing
    progress : called with the number of inputs done, those from the store at once; an exception that it raises stops the work, and
        blocks already written stay

    The last bits of a network's output may depend on how many inputs share a pass, so every pass has ``batch`` inputs of one block.
    """
    wanted = wanted_of(cuts, raw)
    shared = {"engine": revision(engine), "batch": batch, "view": view, **_fields(source)}
    if view:
        shared |= {"policy": policy} | ({"palette": _digest_of(palette, source)} if len(palette) else {})
    names = source.backbone.cuts
    spaces = [store.space({**shared, "kind": kind, "cut": names[c]}) for kind, c in wanted]
    needed = sorted({i for space in spaces for i in space.missing(digests)})
    if progress is not None:
        progress(len(items) - len(needed))
    if needed:
        run = open_engine(engine, source, wanted, kept=graphs_of(source, wanted, store=store, engine=engine))
    for rows in _blocks(needed):
        block = encoded(source, [items[i] for i in rows], [digests[i] for i in rows], view=view, policy=policy, palette=palette)
        arrays = activations_of(source, block, run, batch=batch, progress=progress)
        for (kind, _), space, array in zip(wanted, spaces, arrays, strict=True):
            space.append([digests[i] for i in rows], array, bound=BOUND if kind == "raw" else None)
    store.trim()
    rows_of = {key: space.rows(digests) for key, space in zip(wanted, spaces, strict=True)}
    return Activations({c: rows_of["pooled", c] for c in cuts}, {c: rows_of["raw", c] for c in raw}, len(needed))


def wanted_of(cuts: Sequence[int], raw: Sequence[int]) -> Wanted:
    """Return pooled activations at ``cuts`` and whole ones at ``raw`` as an engine is asked for them."""
    return [*(("pooled", c) for c in cuts), *(("raw", c) for c in raw)]


def graphs_of(source: Source, wanted: Wanted, *, store: Store, engine: str) -> Space:
    """Return where the graph is kept that an engine's package runs; the precision is the engine's, not the graph's."""
    package = ENGINES[engine][0]
    return store.space(
        {"kind": "graph", "package": [package, version(package)], "wanted": [[k, source.backbone.cuts[c]] for k, c in wanted], **_fields(source)}
    )


def encoded(
    source: Source, items: Sequence[Any], digests: Sequence[str], *, view: int = 0, policy: str = "crop+flip", palette: Sequence[Any] = ()
) -> list[Tensor]:
    """Return what the source takes at cut 0 for each input, (...); two threads decode."""
    from headstart.modality import door
    from headstart.modality.augment import encode_view
    from headstart.modality.image import mapped

    backbone, of = source.backbone, door(source.modality)

    def one(given: tuple[Any, str]) -> Tensor:
        if view == 0:
            return of.encode(given[0], backbone)
        return encode_view(given[0], backbone, digest=given[1], view=view, policy=policy, palette=palette)

    return list(mapped(one, zip(items, digests, strict=True)))


def activations_of(
    source: Source, inputs: Sequence[Tensor], run: Engine, *, batch: int = 32, progress: Callable[[int], None] | None = None
) -> list[np.ndarray]:
    """Return what the engine makes of encoded inputs, ``batch`` at a time; texts run in order of length, since a batch is as long as its longest."""
    from headstart.modality import door
    from headstart.modality.text import widened

    backbone, of = source.backbone, door(source.modality)
    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i])) if source.modality == "text" else list(range(len(inputs)))
    outs: list[np.ndarray] = []
    for start in range(0, len(inputs), batch):
        rows = order[start : start + batch]
        parts = forward(run, of.collate([inputs[i] for i in rows], backbone))
        if isinstance(backbone.preprocess, TextInput):
            parts = [widened(torch.from_numpy(part), backbone).numpy() for part in parts]
        outs = outs or [np.empty((len(inputs), *part.shape[1:]), dtype=np.float32) for part in parts]
        for out, part in zip(outs, parts, strict=True):
            out[rows] = part
        if progress is not None:
            progress(len(rows))
    return outs


def _fields(source: Source) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "weights": source.weights_sha256,
        "source": source.name,
        "preprocess": asdict(source.backbone.preprocess),
        "versions": {name: version(name) for name in DECIDES[source.modality]},
    }


def _digest_of(items: Sequence[Any], source: Source) -> str:
    from headstart.modality import door

    of = door(source.modality)
    return hashlib.sha256("".join(of.digest(item) for item in items).encode()).hexdigest()


def _blocks(needed: Sequence[int]) -> Iterator[list[int]]:
    """Group the rows that are needed by the block of the input list they lie in."""
    block: list[int] = []
    for i in needed:
        if block and i // BLOCK != block[-1] // BLOCK:
            yield block
            block = []
        block.append(i)
    if block:
        yield block
