"""Rows as another process finds them: by the files that they lie in, not by their content."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.activations.store import Rows, opened


@dataclass(frozen=True)
class Placed:
    """Where rows lie: the ``paths`` of their files, and ``places`` (n,), their numbers over all of those.

    >>> import tempfile
    >>> from headstart.activations.store import Store
    >>> space = Store(Path(tempfile.mkdtemp())).space({"cut": 3})
    >>> space.append(["x", "y"], np.eye(2, dtype=np.float32))
    >>> np.asarray(Placed.of(space.rows(["y"])).found()).tolist()
    [[0.0, 1.0]]
    """

    paths: tuple[Path, ...]
    places: np.ndarray

    @classmethod
    def of(cls, rows: Rows) -> Placed:
        """Return where those rows lie; files of the space that hold none of them are left out."""
        starts = np.array([shard.start for shard in rows.shards])
        used, which = np.unique(np.searchsorted(starts, rows.places, side="right") - 1, return_inverse=True)
        kept = [rows.shards[i] for i in used]
        moved = np.cumsum([0, *(len(shard) for shard in kept)])[:-1]
        paths = tuple(Path(str(getattr(shard.rows, "filename", ""))).resolve() for shard in kept)
        return cls(paths, rows.places - starts[used][which] + moved[which] if len(used) else rows.places)

    def found(self) -> Rows | None:
        """Return the rows, read from disk as they are indexed; ``None`` where a file is not to be seen from here, or is gone."""
        shards, start = [], 0
        for path in self.paths:
            if (shard := opened(path)) is None:
                return None
            shards.append(dataclasses.replace(shard, start=start))
            start += len(shard)
        return Rows(tuple(shards), self.places)
