"""An ONNX file as a frozen extractor: one stage, run by ONNX Runtime. The file's bytes travel in the state, so that a saved model is whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import Backbone, InputError, Preprocess

INSTALL = "pip install 'headstart[fast]'"


def frozen(path: Path, *, preprocess: Preprocess | None = None) -> Backbone:
    """Return the backbone of a file with one image input, (n, 3, h, w) or (n, h, w, 3); its first output, averaged over positions, is the feature.

    ``preprocess`` is how the images were prepared in training; default: the input's own size, ImageNet's mean and deviation.

    Raises
    ------
    InputError
        the file is absent or no ONNX, takes something else than images, or ONNX Runtime is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file. Give an ONNX file.")
    stage = Session(np.frombuffer(path.read_bytes(), dtype=np.uint8).copy())
    shape = stage.session(path).get_inputs()[0].shape
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise InputError(f"{path} takes {shape}, which is no image in colour. An input of (n, 3, h, w) or (n, h, w, 3) is needed.")
    sides = [v for v in shape[1:] if isinstance(v, int) and v > 3]
    look = preprocess or Preprocess(size=sides[0] if sides else 224)
    body = Backbone({"graph": stage}, dim=1, preprocess=look)
    with torch.inference_mode():
        body.dim = int(body(torch.zeros(1, 3, look.size, look.size)).shape[1])
    return body.eval()


def recipe(body: Backbone) -> dict[str, Any]:
    """Return what :func:`blank` needs."""
    graph: Any = body.stages["graph"]
    return {"library": "onnx", "size": len(graph.content), "dim": body.dim, "preprocess": dataclasses.asdict(body.preprocess)}


def blank(*, size: int, dim: int, preprocess: Mapping[str, Any]) -> Backbone:
    """Return a backbone that a saved state of that many bytes can be loaded into."""
    look = Preprocess.of(preprocess)
    return Backbone({"graph": Session(np.zeros(size, dtype=np.uint8))}, dim=dim, preprocess=look).eval()


class Session(nn.Module):
    """Runs a graph; the session is opened on first use and is no part of the state."""

    content: Tensor

    def __init__(self, content: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("content", torch.from_numpy(content))
        self._opened: Any = None

    def session(self, path: Path | None = None) -> Any:
        """Return the open session."""
        if self._opened is None:
            self._opened = _open(self.content.numpy().tobytes(), path)
        return self._opened

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise InputError("An ONNX file cannot be fine-tuned: it holds a graph, not a network. Use its frozen features.")
        session = self.session()
        entry = session.get_inputs()[0]
        last = entry.shape[3] == 3
        values = x.permute(0, 2, 3, 1) if last else x
        if isinstance(entry.shape[0], int):  # why: some graphs are exported for one fixed batch size
            outs = [session.run(None, {entry.name: part.contiguous().numpy()})[0] for part in values.split(entry.shape[0])]
            out = torch.from_numpy(np.concatenate(outs))
        else:
            out = torch.from_numpy(session.run(None, {entry.name: values.contiguous().numpy()})[0])
        if out.ndim == 4:
            return out.mean(dim=(1, 2) if last else (2, 3))
        return out.flatten(1)


def _open(content: bytes, path: Path | None) -> Any:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as states
    except ImportError:
        raise InputError(f"ONNX files need onnxruntime. Install it: {INSTALL}.") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (states.Fail, states.InvalidGraph, states.InvalidProtobuf, states.InvalidArgument, states.NotImplemented, states.RuntimeException) as error:
        raise InputError(f"{path or 'The file'} is no ONNX graph that can be run ({str(error).splitlines()[0][:120]}).") from None
