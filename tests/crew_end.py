"""The command line, which tells at the very end on stderr which threads of Gloo it leaves: one that frees a tensor while Python ends aborts the process."""

from __future__ import annotations

import atexit
import sys
from pathlib import Path

from headstart.cli import main


def tell() -> None:
    names = sorted(name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm"))
    print(*(f"left: {name}" for name in names if "gloo" in name), sep="\n", end="", file=sys.stderr)


if __name__ == "__main__":
    assert any(Path("/proc/self/task").glob("*/comm")), "threads cannot be counted here"
    atexit.register(tell)
    main()
