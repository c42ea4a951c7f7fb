"""Activations of frozen stages: each input goes through them once, ever.

One pass serves every wanted cut. Inputs run in blocks whose bounds depend on the list of inputs alone, so that an interrupted run, which
computes the missing blocks later, gets the same bytes as one that was left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from headstart.activations.engine import forward_cuts, tune_allocator
from headstart.activations.store import BOUND, Rows, Space, Store
from headstart.core import Backbone, Source, TextInput

BLOCK = 128
DECIDES = {"image": ("torch", "torchvision", "timm", "pillow"), "text": ("torch", "transformers", "tokenizers"), "tabular": ("torch",)}
ENGINE = "torch channels_last float32"


@dataclass(frozen=True)
class Activations:
    """``pooled[cut]`` is (n, d) float32, ``raw[cut]`` (n, ...) rows on disk; ``computed`` counts the inputs that had to run."""

    pooled: dict[int, np.ndarray]
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
    view : 0 is the input as it is; 1, 2, ... are augmented views of images, each always the same (see ``modality.augment``) and stored apart
    batch : inputs per pass; above 32 a CPU gains nothing
    progress : called with the number of inputs done, those from the store at once; an exception that it raises stops the work, and
        blocks already written stay

    The last bits of a network's output may depend on how many inputs share a pass, so every pass has ``batch`` inputs of one block.
    """
    spaces = _spaces(source, store, cuts, raw, batch, view)
    needed = sorted({i for space in spaces.values() for i in space.missing(digests)})
    if progress is not None:
        progress(len(items) - len(needed))
    if needed:
        tune_allocator()
    for rows in _blocks(needed):
        arrays = _run(source, [(items[i], digests[i]) for i in rows], spaces, view=view, batch=batch, progress=progress)
        for key, space in spaces.items():
            space.append([digests[i] for i in rows], arrays[key], bound=BOUND if key[0] == "raw" else None)
    return Activations({c: spaces["pooled", c].read(digests) for c in cuts}, {c: spaces["raw", c].rows(digests) for c in raw}, len(needed))


def _spaces(source: Source, store: Store, cuts: Sequence[int], raw: Sequence[int], batch: int, view: int) -> dict[tuple[str, int], Space]:
    from dataclasses import asdict

    shared = {
        "weights": source.weights_sha256,
        "source": source.name,
        "preprocess": asdict(source.backbone.preprocess),
        "engine": ENGINE,
        "batch": batch,
        "view": view,
        "versions": {name: version(name) for name in DECIDES[source.modality]},
    }
    wanted = [("pooled", c) for c in cuts] + [("raw", c) for c in raw]
    return {(kind, c): store.space({**shared, "kind": kind, "cut": source.backbone.cuts[c]}) for kind, c in wanted}


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


def _run(
    source: Source, items: Sequence[tuple[Any, str]], spaces: Mapping[tuple[str, int], Space], *, view: int, batch: int, progress: Callable[[int], None] | None
) -> dict[tuple[str, int], np.ndarray]:
    from headstart.modality import door
    from headstart.modality.augment import encode_view
    from headstart.modality.image import mapped

    backbone = source.backbone
    if source.modality == "image":
        backbone = backbone.to(memory_format=torch.channels_last)
    of = door(source.modality)
    parts: dict[tuple[str, int], list[np.ndarray]] = {key: [] for key in spaces}
    encoded = mapped(lambda one: of.encode(one[0], backbone) if view == 0 else encode_view(one[0], backbone, digest=one[1], view=view), items)
    for start in range(0, len(items), batch):
        x = of.collate([next(encoded) for _ in range(min(batch, len(items) - start))], backbone)
        out = forward_cuts(backbone, x, {c for _, c in spaces})
        for (kind, c), rows in parts.items():
            rows.append((backbone.pooling(out[c]) if kind == "pooled" else _widened(out[c], backbone).contiguous()).numpy())
        if progress is not None:
            progress(len(x))
    return {key: np.concatenate(rows) for key, rows in parts.items()}


def _widened(x: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    from headstart.modality.text import widened

    return widened(x, backbone) if isinstance(backbone.preprocess, TextInput) else x
