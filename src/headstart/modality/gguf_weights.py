"""The weights of a Llama or Qwen out of a GGUF file, de-quantised to float32, under the names of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.core import InputError

WHOLE = {"token_embd": "embed_tokens", "output_norm": "norm"}
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
FAMILIES = ("llama", "qwen2", "qwen3")


def read(file: Path, config: Any) -> dict[str, Tensor]:
    """Return the body's weights; the head that predicts tokens is left out.

    llama.cpp orders the rows of Llama's queries and keys for its own rotation, in pairs of neighbours; transformers rotates halves, so they are put back.

    Raises
    ------
    InputError
        another family, or a tensor that is not known: to leave one out could change every feature.
    """
    try:
        from gguf import GGUFReader, dequantize
    except ImportError:
        raise InputError("GGUF files need the package gguf. Install it: pip install 'headstart[text]'.") from None
    if config.model_type not in FAMILIES:
        raise InputError(f"{file} holds a {config.model_type}; from GGUF, {', '.join(FAMILIES)} are read. Use a folder with safetensors.")
    state = {}
    for tensor in GGUFReader(str(file)).tensors:
        if tensor.name == "output.weight":
            continue
        name = _name(tensor.name)
        if name is None:
            raise InputError(f"{file} holds a tensor that is not understood ({tensor.name}). Use a folder with safetensors.")
        value = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        state[name] = _halves(value, name, config) if config.model_type == "llama" else value
    return state


def _name(name: str) -> str | None:
    part, _, kind = name.rpartition(".")
    if part in WHOLE:
        return f"{WHOLE[part]}.{kind}"
    block, _, rest = part.partition(".")
    index, _, inner = rest.partition(".")
    return f"layers.{index}.{PARTS[inner]}.{kind}" if block == "blk" and inner in PARTS else None


def _halves(value: Tensor, name: str, config: Any) -> Tensor:
    if "q_proj" not in name and "k_proj" not in name:
        return value
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    return value.reshape(heads, len(value) // heads // 2, 2, *value.shape[1:]).transpose(1, 2).reshape(value.shape)
