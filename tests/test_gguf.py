"""GGUF: what llama.cpp writes is read back as the network it was, and what is not understood is refused."""

import re
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers

from headstart.core import InputError
from headstart.modality import gguf_weights, language, text


def a_gguf(path: Path, state: dict[str, torch.Tensor], config: object) -> None:
    """Write a tiny Llama as llama.cpp's converter does, queries and keys in its own order."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}  # type: ignore[attr-defined]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)  # type: ignore[attr-defined]
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(24)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(500.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(30)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"<{i}>" for i in range(10)] + ["ab", *"abcdefghijklmnopqrs"])
    writer.add_token_types([3] * 10 + [1] * 20)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)  # type: ignore[attr-defined]
    for name, value in state.items():
        rows = next((n for part, n in heads.items() if part in name), None)
        if rows:
            value = value.reshape(rows, 2, len(value) // rows // 2, -1).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(names.get_name(f"model.{name.removesuffix('.weight')}") + ".weight", value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def test_a_gguf_file_holds_the_network_that_was_written_into_it(tmp_path: Path) -> None:
    fields = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24}
    config = transformers.LlamaConfig(**fields, rope_parameters={"rope_theta": 500.0, "rope_type": "default"}, rms_norm_eps=1e-5)
    torch.manual_seed(0)
    net = transformers.LlamaModel(config).eval()
    a_gguf(tmp_path / "tiny.gguf", net.state_dict(), config)
    body = language.from_folder(tmp_path, gguf_file="tiny.gguf", pooling="last")
    ids = torch.randint(10, 30, (2, 9))
    wanted = net(input_ids=ids).last_hidden_state[:, -1]
    torch.testing.assert_close(body(torch.stack([ids, torch.ones_like(ids)], -1)), wanted, atol=1e-6, rtol=1e-6)
    assert text.encode("abba", body)[:, 0].tolist() == [10, 12, 11]  # the one merge, then single letters


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        ("rope_freqs.weight", "llama", "{0} holds a tensor that is not understood (rope_freqs.weight). Use a folder with safetensors."),
        ("token_embd.weight", "gpt2", "{0} holds a gpt2; from GGUF, llama, qwen2, qwen3 are read. Use a folder with safetensors."),
    ],
)
def test_a_gguf_file_that_is_not_understood_is_refused(name: str, family: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(str(path), family)
    writer.add_tensor(name, np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="^" + re.escape(message.format(path)) + "$"):
        gguf_weights.read(path, transformers.AutoConfig.for_model(family))


def test_a_file_that_is_no_gguf_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"^[^\n]*a\.gguf cannot be read as a GGUF file \([^\n]*give a folder with config\.json[^\n]*\.$"):
        language.from_folder(tmp_path, gguf_file="a.gguf")
