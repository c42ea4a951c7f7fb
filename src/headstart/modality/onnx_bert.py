"""The weights of a BERT out of an ONNX file, under the names of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from headstart.core import InputError
from headstart.modality import onnx_weights

MARK = "embeddings.word_embeddings.weight"  # what stands before it in its name is the exporter's prefix


def read(file: Path, *, heads: int | None) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Return the configuration that the shapes imply, and float32 weights by name.

    The number of attention heads shows in no weight's shape: it is read from the graph, where the exporter splits vectors into (heads, width).

    Raises
    ------
    InputError
        no such file, no ONNX, no BERT, or the heads cannot be found.
    """
    graph = onnx_weights.graph(file)
    arrays = onnx_weights.initialisers(graph)
    first = next((name for name in arrays if name.endswith(MARK)), None)
    if first is None:
        raise InputError(f"{file} holds no BERT (no {MARK}). Give the ONNX file of a BERT that PyTorch exported.")
    prefix = first.removesuffix(MARK)
    state = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    state |= _matrices(graph, arrays, prefix)
    layers = len({name.split(".")[2] for name in state if name.startswith("encoder.layer.")})
    if "encoder.layer.0.intermediate.dense.weight" not in state:
        raise InputError(f"{file} holds no BERT (no matrix of its first layer was found). Give the ONNX file of a BERT that PyTorch exported.")
    words, width = state[MARK].shape
    found = heads or _heads(graph, width)
    if found is None or width % found:
        raise InputError(f"{file} does not tell the number of attention heads of width {width}. Give it: heads=12.")
    config = {
        "vocab_size": words,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": found,
        "intermediate_size": state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": state["embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": state["embeddings.token_type_embeddings.weight"].shape[0],
    }
    return config, state


def _matrices(graph: Any, arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Name each matrix after the bias that is added to its product, and turn it: ONNX multiplies x W, a linear layer x W^T."""
    made = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in arrays}
    named = {}
    for node in graph.node:
        bias = next((i for i in node.input if i.startswith(prefix) and i.endswith(".bias")), None)
        product = next((made[i] for i in node.input if i in made), None)
        if node.op_type == "Add" and bias is not None and product is not None:
            named[f"{bias.removeprefix(prefix).removesuffix('bias')}weight"] = arrays[product].T.contiguous()
    return named


def _heads(graph: Any, width: int) -> int | None:
    written = [n for n in graph.node if n.op_type == "Constant" and n.attribute[0].HasField("t")]
    constants = {n.output[0]: onnx_weights.array(n.attribute[0].t).flatten().tolist() for n in written}
    for node in graph.node:
        if node.op_type == "Concat" and len(node.input) == 4:
            *_, heads, each = (constants.get(name, [0]) for name in node.input)
            if heads[0] * each[0] == width:
                return int(heads[0])
    return None
