"""What a source costs on this machine, in seconds per input: measured when its frozen stages run, and remembered beside the activations."""

from __future__ import annotations

import json
import os
from pathlib import Path

FEWEST = 32  # inputs, below which start-up would be most of what is measured
COSTS_FILE = "costs.json"


def known(root: Path) -> dict[str, float]:
    """Return seconds per input by SHA-256 of the weights."""
    try:
        plain = json.loads((root / COSTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): float(v) for k, v in plain.items() if isinstance(v, int | float)}


def record(root: Path, weights_sha256: str, *, seconds: float, inputs: int) -> None:
    """Remember a measurement; fewer than 32 inputs, and a folder that cannot be written, are passed over: nothing depends on it."""
    if inputs < FEWEST:
        return
    path = root / COSTS_FILE
    scratch = path.with_name(f".{COSTS_FILE}.{os.getpid()}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps({**known(root), weights_sha256: seconds / inputs}, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)
