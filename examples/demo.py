"""The demo: the main job on photographs of solar cells, twice: one gain is a close call, the other is not shown.

Functional against defective cells (ELPV, Buerhop-Lutz et al. 2018), 600 of polycrystalline and 400 of monocrystalline silicon.
Run it with ``make demo``; it needs the extras ``sources`` and ``demo``.
"""

import sys
from importlib.metadata import files
from pathlib import Path

import numpy as np

from headstart.cli import main

CELLS = {"poly": (360, 240, "115s"), "mono": (240, 160, "80s")}


def write_images(root: Path) -> None:
    """Copy a fixed draw of functional (defect probability 0) and defective (1) cells into class folders."""
    listed = {f.name: f for f in files("elpv-dataset") or () if f.suffix in {".png", ".csv"}}
    table = [line.split() for line in Path(str(listed["labels.csv"].locate())).read_text().splitlines()]
    for kind, (functional, defective, _) in CELLS.items():
        generator = np.random.default_rng(0)
        for name, label, n in (("functional", 0.0, functional), ("defective", 1.0, defective)):
            rows = [path for path, probability, silicon in table if silicon == kind and float(probability) == label]
            folder = root / f"{kind}crystalline" / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in sorted(generator.choice(len(rows), n, replace=False)):
                target = folder / Path(rows[i]).name
                if not target.exists():
                    target.write_bytes(Path(str(listed[target.name].locate())).read_bytes())


def run(kind: str, budget: str) -> Path:
    """Run the command that the README shows, on one kind of cell."""
    out = Path("demo") / "runs" / kind
    words = ["transfer", str(Path("demo") / f"{kind}crystalline"), "--out", str(out), "--budget", budget, "--seed", "0"]
    print(f"\n$ headstart {' '.join(words)}", flush=True)
    sys.argv = ["headstart", *words]
    try:
        main()
    except SystemExit as end:
        if end.code not in (0, None):
            raise
    return out / "report.html"


if __name__ == "__main__":
    write_images(Path("demo"))
    reports = [run(kind, budget) for kind, (_, _, budget) in CELLS.items()]
    print("\nOpen the reports in a browser:", *reports, sep="\n  ")
