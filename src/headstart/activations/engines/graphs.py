"""Engines that run a graph: the network is exported once, converted, and kept beside the activations, since converting takes seconds."""

from __future__ import annotations

import io
import logging
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import InputError

if TYPE_CHECKING:
    from headstart.activations.store import Space

KEY = "graph"
# what torch.export and the converters were seen to raise, or derive their own errors from; OpenVINO's own derive from nothing else
REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, ImportError)
MOST_INPUTS = 4096  # a bound that the exporter asks for; batches have 32


def openvino(net: nn.Module, sample: Tensor, *, longest: int, name: str, what: str, kept: Space | None) -> Callable[[Tensor], list[np.ndarray]]:
    """Return the network as OpenVINO runs it on the processor.

    ``longest`` is the most tokens that it reads, ``what`` its name in messages; the rest is as in ``open_engine``.
    """
    import openvino as ov

    content = _kept(kept, lambda: _openvino_graph(net, sample, longest=longest, name=name, what=what))
    (length,) = struct.unpack("<Q", content[:8].tobytes())
    core = ov.Core()
    model = core.read_model(content[8 : 8 + length].tobytes(), ov.Tensor(np.ascontiguousarray(content[8 + length :])))
    precision = "bf16" if name.endswith("-bf16") else "f32"
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()

    def run(x: Tensor) -> list[np.ndarray]:
        # why not shared: the outputs are the request's own memory, which the next batch overwrites
        out = request.infer([x.contiguous().numpy()], share_inputs=True, share_outputs=False)
        return [np.asarray(out[key], dtype=np.float32) for key in compiled.outputs]

    return run


def onnxruntime(net: nn.Module, sample: Tensor, *, longest: int, name: str, what: str, kept: Space | None) -> Callable[[Tensor], list[np.ndarray]]:
    """Return the network as ONNX Runtime runs it on the processor; see :func:`openvino`."""
    import onnxruntime as ort

    content = _kept(kept, lambda: _onnx_graph(net, sample, longest=longest, name=name, what=what))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(content.tobytes(), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    return lambda x: [np.asarray(out, dtype=np.float32) for out in session.run(None, {entry: x.contiguous().numpy()})]


def _kept(space: Space | None, make: Callable[[], bytes]) -> np.ndarray:
    """Return the graph's bytes, uint8, from where it is kept, or made and kept from now on."""
    if space is None:
        return np.frombuffer(make(), dtype=np.uint8)
    if space.missing([KEY]):
        space.append([KEY], np.frombuffer(make(), dtype=np.uint8)[None])
    return np.asarray(space.read([KEY])[0])


def _openvino_graph(net: nn.Module, sample: Tensor, *, longest: int, name: str, what: str) -> bytes:
    """Eight bytes with the length of the XML, the XML, the weights."""
    import openvino as ov

    with _explained(name, what), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "graph.xml"
        ov.save_model(ov.convert_model(_exported(net, sample, longest)), path, compress_to_fp16=False)
        xml = path.read_bytes()
        return struct.pack("<Q", len(xml)) + xml + path.with_suffix(".bin").read_bytes()


def _onnx_graph(net: nn.Module, sample: Tensor, *, longest: int, name: str, what: str) -> bytes:
    with _explained(name, what):
        program = torch.onnx.export(_exported(net, sample, longest), (sample,), dynamo=True, verbose=False)
        return program.model_proto.SerializeToString()  # type: ignore[union-attr, no-any-return]


def _exported(net: nn.Module, sample: Tensor, longest: int) -> Any:
    """Any number of inputs, and of tokens; pixels as many as the source takes."""
    dynamic = {0: torch.export.Dim("n", min=1, max=MOST_INPUTS)}
    if sample.ndim == 3:
        dynamic[1] = torch.export.Dim("t", min=2, max=longest)
    with torch.no_grad():
        return torch.export.export(net, (sample,), dynamic_shapes=(dynamic,), strict=False)


@contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Keep the exporters' chatter off the screen; what stops them is one line, since any layer may be the one that they do not know."""
    logger = logging.getLogger("torch.onnx")
    level, logger.level = logger.level, logging.ERROR
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except _refusals_of(name) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{what} cannot be converted for the engine {name} ({reason}). Use the engine torch, or auto.") from None
    finally:
        logger.setLevel(level)


def _refusals_of(name: str) -> tuple[type[Exception], ...]:
    if name == "onnxruntime":
        return REFUSALS
    from openvino import frontend

    return (
        *REFUSALS,
        frontend.GeneralFailure,
        frontend.InitializationFailure,
        frontend.NotImplementedFailure,
        frontend.OpConversionFailure,
        frontend.OpValidationFailure,
    )
