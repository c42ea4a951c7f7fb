"""Weights out of the HDF5 files that Keras writes, turned from TensorFlow's layout into PyTorch's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstart.core import InputError


def read(file: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the arrays of those names that the file holds, in float32; names are paths, as in "model_weights/Conv1/kernel".

    Only what is asked for is read, and nothing of a Keras file is run: a model's configuration may hold code, and stays where it is.

    Raises
    ------
    InputError
        the file is absent, damaged or no HDF5, or h5py is not installed.
    """
    try:
        import h5py  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise InputError(f"{file} is a Keras file, which needs the package h5py. Install it: pip install h5py") from None
    try:
        with h5py.File(file, "r") as opened:
            found = {name: opened[name] for name in names if isinstance(opened.get(name), h5py.Dataset)}
            return {name: np.asarray(one[()], dtype=np.float32) for name, one in found.items()}
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{file} cannot be read as a Keras file ({' '.join(str(error).split())}). Install its package again.") from None


def convolution(kernel: np.ndarray) -> Tensor:
    """Return (out, in, h, w) of a kernel (h, w, in, out).

    >>> convolution(np.arange(6.0).reshape(1, 2, 3, 1)).flatten().tolist()  # in runs slower than w now
    [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    """
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))


def depthwise(kernel: np.ndarray) -> Tensor:
    """Return (channels, 1, h, w) of a kernel (h, w, channels, 1) that works on each channel alone."""
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(2, 3, 0, 1)))


def dense(kernel: np.ndarray) -> Tensor:
    """Return (out, in) of a matrix (in, out)."""
    return torch.from_numpy(np.ascontiguousarray(kernel.T))
