"""The memory allocator: keep what networks use again and again."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def tune_allocator() -> bool:
    """Let glibc keep large blocks instead of returning each to the system; return whether that was possible.

    Activations above 32 MB are otherwise mapped, zeroed page by page and unmapped for every layer: half a million page faults a pass on a
    depthwise network, 1.4 to 2.8 times the time. The price is that the process stays at its largest size. Numbers do not change.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # another C library, such as musl, has no such setting
    return all(mallopt(option, value) == 1 for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 256 * 2**20)))
