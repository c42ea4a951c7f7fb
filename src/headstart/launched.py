"""How this process was started: alone, or by torchrun as one of several. Apart from the crew, for the command line asks it before PyTorch is imported."""

from __future__ import annotations

import os


def processes() -> int:
    """Return how many processes torchrun started; 1 without it.

    >>> processes()
    1
    """
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1
