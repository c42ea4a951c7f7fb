"""What a source costs on a machine, in seconds per input: measured when its frozen stages run, or on request, and remembered beside the activations."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from headstart.core import Preprocess, Source, TextInput

FEWEST = 32  # inputs, below which start-up would be most of what is measured
ROUNDS = 3  # batches of 32 that are timed, after a small one that is not: the first allocates
COSTS_FILE = "costs.json"
ENGINES_KEY = "engines"
WORDS = "a small brown dog runs after the red ball that a child has thrown over the old fence into the garden"  # 20 words, 22 tokens of a BERT


def known(root: Path) -> dict[str, float]:
    """Return seconds per input on this machine by SHA-256 of the weights."""
    here = _all(root).get(machine(), {})
    return {str(k): float(v) for k, v in here.items() if isinstance(v, int | float)}


def record(root: Path, weights_sha256: str, *, seconds: float, inputs: int) -> None:
    """Remember a measurement; fewer than 32 inputs, and a folder that cannot be written, are passed over: nothing depends on it."""
    if inputs < FEWEST:
        return
    _write(root, {weights_sha256: seconds / inputs})


def speeds(root: Path, key: str) -> dict[str, float | None]:
    """Return seconds per input by engine, as this machine remembers them for what ``key`` names; ``None`` for an engine that cannot run it."""
    known = _all(root).get(machine(), {}).get(ENGINES_KEY, {})
    return {str(k): v if v is None else float(v) for k, v in known.get(key, {}).items()}


def record_speeds(root: Path, key: str, measured: dict[str, float | None]) -> None:
    """Remember seconds per input by engine. A folder that cannot be written is passed over."""
    _write(root, {ENGINES_KEY: {**_all(root).get(machine(), {}).get(ENGINES_KEY, {}), key: measured}})


def _write(root: Path, news: dict[str, Any]) -> None:
    plain = _all(root)
    plain[machine()] = {**plain.get(machine(), {}), **news}
    path = root / COSTS_FILE
    scratch = path.with_name(f".{COSTS_FILE}.{os.getpid()}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(plain, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)


def measure(source: Source) -> tuple[float, int]:
    """Run a source's frozen stages on made-up inputs (an image of its own size, a text of 20 words), and return seconds and inputs for :func:`record`.

    Preparing the inputs counts, decoding files does not. The fastest of three batches, since what else runs on the machine only adds.
    """
    from headstart.activations.engines import open_engine
    from headstart.modality import door

    backbone, of, item = source.backbone, door(source.modality), _sample(source)
    engine = open_engine("torch", source, [("pooled", len(backbone.stages))])

    def run(inputs: int) -> float:
        start = time.perf_counter()
        engine(of.collate([of.encode(item, backbone) for _ in range(inputs)], backbone))
        return time.perf_counter() - start

    run(4)
    return min(run(FEWEST) for _ in range(ROUNDS)), FEWEST


def machine() -> str:
    """Return what tells this machine from another as far as speed goes, for a folder that several machines share: processor and usable cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _all(root: Path) -> dict[str, dict[str, Any]]:
    try:
        plain = json.loads((root / COSTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): v for k, v in plain.items() if isinstance(v, dict)} if isinstance(plain, dict) else {}


def _sample(source: Source) -> Any:
    import numpy as np

    look = source.backbone.preprocess
    if isinstance(look, TextInput):
        return WORDS
    side = look.size if isinstance(look, Preprocess) else 1
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
