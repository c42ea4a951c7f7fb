"""What assessing costs: seconds of the forward passes, and of everything beside them.

    python benchmarks/assess.py [--data DIR] [--store DIR]

All 2,624 solar cells (ELPV), probably functional against probably defective, of which 1,968 are looked at; the packaged sources, and with ``--data`` those of
pool.py besides. The first call makes the features, the second finds them stored;
with ``--store`` they are kept for the next run of this script. Results go to RESULTS.md by hand.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import headstart as hs
import pool


def cells(folder: Path) -> Path:
    from elpv_dataset.utils import load_dataset
    from PIL import Image

    pictures, probability, _ = load_dataset()
    for i, (picture, p) in enumerate(zip(pictures, probability, strict=True)):
        place = folder / ("defective" if p > 0.5 else "functional")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{i:04d}.png")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--store", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HEADSTART_CACHE"] = str(options.store or Path(scratch) / "store")
        task = hs.Task.from_folder(cells(Path(scratch) / "cells"))
        sources = pool.sources(options.data)
        if options.data is None:
            print("Without --data the pool has packaged sources only.")
        for call in ("first", "second"):
            found = hs.assess(task, sources, seed=0)
            passes = sum(s for name, s in found.times.items() if name.startswith("features."))
            beside = found.times["total"] - passes
            print(
                f"{call}: {len(sources)} sources, {found.n_used} of {found.n} images: {found.times['total']:.1f} s, "
                f"of which features {passes:.1f}, baseline {found.times['baseline']:.1f}, beside the features {beside:.1f}"
            )


if __name__ == "__main__":
    main()
