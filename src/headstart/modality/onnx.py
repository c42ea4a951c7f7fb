"""An ONNX file as a frozen extractor: one stage, run by ONNX Runtime. The file's bytes travel in the state, so that a saved model is whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import Backbone, InputError, Preprocess

INSTALL = "pip install 'headstart[fast]'"


METADATA = "headstart.preprocess"  # key of a file's metadata: the fields of Preprocess as JSON


def frozen(path: Path, *, preprocess: Preprocess | None = None) -> Backbone:
    """Return the backbone of a file with one image input, (n, 3, h, w) or (n, h, w, 3); its first output, averaged over positions, is the feature.

    ``preprocess`` is how the images were prepared in training; ``None``: as the file's metadata say under "headstart.preprocess". It is not
    guessed: wrong ones raise no error and ruin the features.

    Raises
    ------
    InputError
        the file is absent or no ONNX, takes something else than square images of the preprocessing's size, says nothing of how they are prepared,
        or ONNX Runtime is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file. Give an ONNX file.")
    stage = Session(np.frombuffer(path.read_bytes(), dtype=np.uint8).copy())
    session = stage.session(path)
    inputs = session.get_inputs()
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]) or inputs[0].type != "tensor(float)":
        raise InputError(f"{path} takes {shape} {inputs[0].type}, which is no image in colour. One input of (n, 3, h, w) or (n, h, w, 3) floats is needed.")
    look = preprocess or _said(session.get_modelmeta().custom_metadata_map.get(METADATA), path)
    sides = [v for v in (shape[2:] if shape[1] == 3 else shape[1:3]) if isinstance(v, int)]
    if any(side != look.size for side in sides):
        raise InputError(
            f"{path} takes images of {' x '.join(map(str, sides))} pixels, and its preprocessing makes {look.size} x {look.size}. Make them equal."
        )
    body = Backbone({"graph": stage}, dim=1, preprocess=look)
    with torch.inference_mode():
        body.dim = int(body(torch.zeros(1, 3, look.size, look.size)).shape[1])
    return body.eval()


def _said(text: str | None, path: Path) -> Preprocess:
    if text is None:
        ways = f"sources.from_onnx({str(path)!r}, preprocess=Preprocess(size=..., mean=..., std=...)), or [sources.NAME.preprocess] in headstart.toml"
        raise InputError(f"{path} does not say how its images were prepared in training. Say it: {ways}.")
    try:
        return Preprocess.of(json.loads(text))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} says {METADATA!r} in a form that is not read ({error}). Write the fields of Preprocess as JSON.") from None


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
        self.training = False

    def session(self, path: Path | None = None) -> Any:
        """Return the open session."""
        if self._opened is None:
            if not bool(self.content[:64].any()):
                raise InputError("An ONNX file has no architecture that could be drawn at random. Load its weights first, or choose another source.")
            self._opened = _open(self.content.numpy().tobytes(), path)
        return self._opened

    def train(self, mode: bool = True) -> Self:
        if mode:
            raise InputError("An ONNX file cannot be fine-tuned: it holds a graph, not a network. Use its frozen features.")
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        session = self.session()
        entry = session.get_inputs()[0]
        last = entry.shape[3] == 3
        values = (x.permute(0, 2, 3, 1) if last else x).detach().float().cpu().contiguous().numpy()
        outs = [session.run(None, {entry.name: part})[0][:keep] for part, keep in _parts(values, entry.shape[0])]
        out = torch.from_numpy(np.concatenate(outs)).to(x.device)
        if out.ndim == 4:
            return out.mean(dim=(1, 2) if last else (2, 3))
        return out.flatten(1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # why: an open session can be neither copied nor sent; it is opened again on first use


def _parts(values: np.ndarray, size: Any) -> list[tuple[np.ndarray, int]]:
    """Cut into the batches that a graph of fixed batch size takes; a short last one is filled up with its first row."""
    if not isinstance(size, int):
        return [(values, len(values))]
    parts = [values[i : i + size] for i in range(0, len(values), size)]
    return [(np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)]), len(part)) for part in parts]


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
