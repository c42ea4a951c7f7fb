"""Weights out of ONNX files, without running them: the graph, and its convolutions by the name of the layer they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.core import InputError


def graph(file: Path) -> Any:
    """Return the graph of an ONNX file. Raises ``InputError`` where it cannot be read, or onnx is not installed."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise InputError("ONNX files need the package onnx. Install it: pip install onnx") from None
    try:
        return onnx.load(str(file), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise InputError(f"{file} cannot be read as ONNX ({' '.join(str(error).split())}). Give an .onnx file.") from None


def initialisers(read: Any) -> dict[str, Tensor]:
    """Return the graph's constant tensors by name."""
    return {one.name: array(one) for one in read.initializer}


def convolutions(read: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Return kernel (out, in, h, w) and bias (out,) of each convolution that has both, by what it writes, up to the last "/".

    A converter from TensorFlow calls folded weights by number, but what a convolution writes still bears the name of its layer, or of the
    BatchNorm that was folded into it: "bn_stage0_block0_branch2b/FusedBatchNormV3:0".
    """
    known = initialisers(read)
    whole = [node for node in read.node if node.op_type == "Conv" and len(node.input) == 3 and {*node.input[1:]} <= set(known)]
    return {node.output[0].rpartition("/")[0]: (known[node.input[1]], known[node.input[2]]) for node in whole}


def array(tensor: Any) -> Tensor:
    """Return the values of one of the file's tensors."""
    from onnx import numpy_helper

    return torch.from_numpy(numpy_helper.to_array(tensor).copy())
