"""Transformers for text as chains of named stages: embeddings, layer_0, layer_1, ..., head.

Each stage is the original network with all but its own part taken out, so masks, positions and rotations are made by the library's own code,
and stages composed equal the whole bit for bit. The attention mask travels as the last channel of the one tensor that runs through the chain.
"""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core import Backbone, InputError, TextInput
from headstart.modality.pooling import POOLINGS, Pooling

MAX_LENGTH = 256  # tokens, where the weights do not say: two or three paragraphs, and a quarter of the cost of 512
INSTALL = "pip install 'headstart[text]'"


@dataclass(frozen=True)
class Anatomy:
    """Where a family keeps its parts: the list of layers, what comes before it, and the norm behind it."""

    layers: str
    front: tuple[str, ...] = ("embeddings",)
    norm: str | None = None
    positions: str | None = None  # an embedding of positions that the network itself adds
    dropout: str | None = None  # of the embedded input
    pooling: str = "mean"
    only_first: str | None = None  # a part that belongs to the first layer


# encoders pool by the mean: as frozen features it beats the first token where that was not trained for it (Reimers & Gurevych 2019, table 6)
# decoders pool by the last token, the only one that has seen the whole text
ANATOMIES: dict[str, Anatomy] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "mpnet"), Anatomy("encoder.layer")),
    "distilbert": Anatomy("transformer.layer"),
    "electra": Anatomy("encoder.layer", ("embeddings", "embeddings_project")),
    **dict.fromkeys(("deberta", "deberta-v2"), Anatomy("encoder.layer", only_first="encoder.conv")),
    "modernbert": Anatomy("layers", norm="final_norm"),
    "gpt2": Anatomy("h", (), norm="ln_f", positions="wpe", dropout="drop", pooling="last"),
    "gpt_neox": Anatomy("layers", (), norm="final_layer_norm", dropout="emb_dropout", pooling="last"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2"), Anatomy("layers", (), norm="norm", pooling="last")),
}


def from_folder(folder: str | Path, *, pooling: str | None = None, max_length: int | None = None, gguf_file: str | None = None) -> Backbone:
    """Return the network of a local Hugging Face folder, with its tokenizer; a sentence-transformers folder keeps its own pooling.

    Parameters
    ----------
    pooling : "mean", "cls" or "last"; ``None``: as the folder says, else as its family is used
    max_length : tokens that are read of a text; ``None``: as the folder says, at most 256
    gguf_file : name of a quantised file in the folder to read instead, de-quantised to float32

    Raises
    ------
    InputError
        the folder holds no such network, or one whose family is not known here.
    """
    folder = Path(folder)
    transformers = _library()
    extra = {"gguf_file": gguf_file} if gguf_file else {}
    if not gguf_file and not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no config.json, so it is no Hugging Face folder. Give the folder that a model was saved into.")
    try:
        with _quiet(transformers):
            if gguf_file:
                net = _from_gguf(transformers, folder, gguf_file)
            else:
                net = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True, weights_only=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, **extra)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        what = f"{folder / gguf_file} cannot be read as a GGUF file" if gguf_file else f"{folder} cannot be read as a Hugging Face model"
        hint = "Fetch it again, or give a folder with config.json, weights in safetensors and a tokenizer."
        raise InputError(f"{what} ({' '.join(str(error).split())[:160]}). {hint}") from None
    own = _sentence_settings(folder)
    return staged(
        net,
        tokenizer,
        pooling=pooling or own.get("pooling"),
        max_length=max_length or own.get("max_length"),
        normalise=bool(own.get("normalise", False)),
    )


def from_onnx_bert(onnx_file: str | Path, tokenizer_folder: str | Path, *, pooling: str = "mean", max_length: int = 128, heads: int | None = None) -> Backbone:
    """Return the BERT that an ONNX file holds as a network that can be trained, with the tokenizer of a folder.

    PyTorch's exporter keeps the names of biases and drops those of the matrices; each is named after the bias that is added behind it.
    ``pooling`` and ``max_length`` are not in the file: the defaults are those of the small sentence encoders, 128 as they were trained.
    ``heads``: ``None`` reads their number from the file.

    Raises
    ------
    InputError
        the file is missing, is no ONNX, or holds no such BERT.
    """
    from headstart.modality import onnx_bert

    transformers = _library()
    config, state = onnx_bert.read(Path(onnx_file), heads=heads)
    net = _filled(transformers.BertModel(transformers.BertConfig(**config), add_pooling_layer=False), state, Path(onnx_file))
    try:
        with _quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{tokenizer_folder} holds no tokenizer ({str(error).splitlines()[0]}). Give the folder of one with the same vocabulary.") from None
    return staged(net, tokenizer, pooling=pooling, max_length=max_length)


def from_config(
    config: Mapping[str, Any], *, pooling: str | None = None, max_length: int | None = None, normalise: bool = False, layers: int | None = None, seed: int = 0
) -> Backbone:
    """Return the architecture of a configuration (the contents of a config.json) with random weights; ``layers``: only the first so many.

    >>> tiny = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    >>> from_config(tiny).cuts
    ('input', 'embeddings', 'layer_0', 'layer_1', 'head')
    """
    transformers = _library()
    plain = {k: v for k, v in config.items() if k not in {"architectures", "transformers_version", "_name_or_path", "use_cache"}}
    made = transformers.AutoConfig.for_model(plain.pop("model_type"), **plain)
    if layers is not None:
        made.num_hidden_layers = layers
        if getattr(made, "layer_types", None):
            made.layer_types = list(made.layer_types[:layers])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = transformers.AutoModel.from_config(made, dtype=torch.float32)
    return staged(net, None, pooling=pooling, max_length=max_length, normalise=normalise)


def staged(net: Any, tokenizer: Any, *, pooling: str | None = None, max_length: int | None = None, normalise: bool = False) -> Backbone:
    """Return a transformers network as stages; see :func:`from_folder`. Raises ``InputError`` for a family that is not known here."""
    family = str(net.config.model_type)
    if family not in ANATOMIES:
        raise InputError(f"Networks of type {family!r} cannot be cut into stages yet. Known: {', '.join(ANATOMIES)}.")
    anatomy = ANATOMIES[family]
    pool = pooling or anatomy.pooling
    if pool not in POOLINGS:
        raise InputError(f"There is no pooling {pool!r}. Say {', '.join(POOLINGS)}.")
    net = net.eval()
    net.config.use_cache = False
    if getattr(net, "pooler", None) is not None:
        net.pooler = None  # why: BERT's own was trained for next-sentence prediction, and nothing here reads it
    count = len(_at(net, anatomy.layers))
    stages: OrderedDict[str, nn.Module] = OrderedDict(embeddings=Embed(_part(net, anatomy, keep=None, front=True)))
    stages |= {f"layer.{i}": Layer(_part(net, anatomy, keep=i)) for i in range(count)}
    last = None if anatomy.norm is None else _part(net, anatomy, keep=None, norm=True)
    stages["head"] = Head(last, Pooling(pool), normalise=normalise)
    length = min(max_length or MAX_LENGTH, int(getattr(net.config, "max_position_embeddings", None) or MAX_LENGTH))
    look = TextInput(length, "", "" if tokenizer is None else _sha256(tokenizer))
    if tokenizer is not None:
        tokenizer.backend_tokenizer.enable_truncation(length)  # why here: setting it per call would need a lock between threads
        tokenizer.backend_tokenizer.no_padding()
    body = Backbone(stages_named(stages), dim=int(net.config.hidden_size), preprocess=look, tokenizer=tokenizer, pooling=Pooling(pool)).eval()
    body.recipe = recipe(net, pooling=pool, max_length=length, normalise=normalise)
    return body


def stages_named(stages: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Return the stages with names that PyTorch takes as names of modules: "layer.0" becomes "layer_0"."""
    return {name.replace(".", "_"): stage for name, stage in stages.items()}


def recipe(net: Any, *, pooling: str | None, max_length: int | None, normalise: bool) -> dict[str, Any]:
    """Return what :func:`from_config` needs to build the same architecture, as plain values."""
    config = {k: v for k, v in json.loads(net.config.to_json_string()).items() if k != "transformers_version"}
    return {"library": "transformers", "config": config, "pooling": pooling, "max_length": max_length, "normalise": normalise}


def save_tokenizer(backbone: Backbone, folder: Path) -> None:
    """Write the backbone's tokenizer into a folder."""
    backbone.tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path) -> Any:
    """Read what :func:`save_tokenizer` wrote."""
    return _library().AutoTokenizer.from_pretrained(folder, local_files_only=True)


class Embed(nn.Module):
    """Token ids and mask (n, t, 2) to hidden states with their mask (n, t, d + 1)."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        x = trimmed(x)
        ids, mask = x[..., 0].long(), x[..., 1].long()
        return _packed(self.part(input_ids=ids, attention_mask=mask).last_hidden_state, mask)


class Layer(nn.Module):
    """One layer: (n, t, d + 1) to (n, t, d + 1)."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        x = trimmed(x)
        mask = x[..., -1].long()
        return _packed(self.part(inputs_embeds=x[..., :-1].contiguous(), attention_mask=mask).last_hidden_state, mask)


class Head(nn.Module):
    """The last norm, where the family has one, pooling, and the unit norm that some sentence encoders end in: (n, t, d + 1) to (n, d)."""

    def __init__(self, part: nn.Module | None, pooling: Pooling, *, normalise: bool) -> None:
        super().__init__()
        self.part = part
        self.pooling = pooling
        self.normalise = normalise

    def forward(self, x: Tensor) -> Tensor:
        x = trimmed(x)
        mask = x[..., -1].long()
        hidden = x[..., :-1] if self.part is None else self.part(inputs_embeds=x[..., :-1].contiguous(), attention_mask=mask).last_hidden_state
        feature: Tensor = self.pooling(_packed(hidden, mask))
        return nn.functional.normalize(feature, dim=1) if self.normalise else feature


def tail(stages: nn.ModuleDict) -> int:
    """Return 1 where the last stage merely pools the states of the one before, with no norm, else 0."""
    head = stages["head"]
    return int(isinstance(head, Head) and head.part is None and not head.normalise)


def trimmed(x: Tensor) -> Tensor:
    """Drop the positions behind the longest text of the batch: stored activations are all equally long, and padding costs time."""
    if torch.compiler.is_exporting():
        return x  # why: a graph has no shapes that depend on values
    longest = int(x[..., -1].bool().sum(dim=1).max())
    return x[:, : max(1, longest)]


class _Given(nn.Module):
    """Stands where embeddings stood: hands on what it is given."""

    def forward(self, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any) -> Any:
        return inputs_embeds if inputs_embeds is not None else next(a for a in args if isinstance(a, Tensor) and a.is_floating_point())


class _Nothing(nn.Module):
    """Stands where an embedding of positions stood: adds nothing, not even a rounding."""

    def forward(self, positions: Tensor) -> Tensor:
        return torch.zeros((), dtype=torch.float32)


class _Skipped(nn.Module):
    """Stands where a layer stood, in families whose loop cannot be empty."""

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return hidden, None


def _from_gguf(transformers: Any, folder: Path, file: str) -> Any:
    """Return the network of a GGUF file; transformers reads its configuration, but asks for another package to read the weights."""
    from transformers.initialization import no_init_weights

    from headstart.modality import gguf_weights

    config = transformers.AutoConfig.from_pretrained(folder, gguf_file=file, local_files_only=True)
    state = gguf_weights.read(folder / file, config)
    with no_init_weights():  # why: all values are replaced, and drawing 135 million takes longer than reading them
        net = transformers.AutoModel.from_config(config, dtype=torch.float32)
    return _filled(net, state, folder / file)


def _filled(net: Any, state: Mapping[str, Tensor], file: Path) -> Any:
    own = net.state_dict()
    wrong = sorted(name for name in {*own, *state} if name not in own or name not in state or state[name].shape != own[name].shape)
    if wrong:
        raise InputError(f"{file} does not hold the weights of its network ({len(wrong)} missing, foreign or of another shape: {wrong[0]}). Fetch it again.")
    net.load_state_dict(state)
    return net


def _part(net: nn.Module, anatomy: Anatomy, *, keep: int | None, front: bool = False, norm: bool = False) -> nn.Module:
    """Return the network with only its front, one of its layers, or its last norm left in; parameters are shared with the original."""
    layers = _at(net, anatomy.layers)
    changes: dict[str, nn.Module | None] = {}
    if not front:
        changes |= {name: _Given() if i == 0 else nn.Identity() for i, name in enumerate(anatomy.front) if _at(net, name) is not None}
        changes |= {name: new for name, new in ((anatomy.positions, _Nothing()), (anatomy.dropout, nn.Identity())) if name is not None}
        changes |= _unused_embeddings(net, anatomy)
    if keep is None:
        changes[anatomy.layers] = nn.ModuleList([_Skipped()] if anatomy.only_first else [])
    else:
        changes[anatomy.layers] = nn.ModuleList([layers[keep]])
    if anatomy.norm is not None and not norm:
        changes[anatomy.norm] = nn.Identity()
    if anatomy.only_first is not None and keep != 0 and _at(net, anatomy.only_first) is not None:
        changes[anatomy.only_first] = None
    part = _with(net, changes)
    part.config = _config_of(net.config, keep)
    return part


def _unused_embeddings(net: nn.Module, anatomy: Anatomy) -> dict[str, nn.Module | None]:
    """Token embeddings that lie in the network itself: the other stages must not carry their weights."""
    return {name: _Given() for name in ("wte", "embed_in", "embed_tokens") if not anatomy.front and hasattr(net, name)}


def _config_of(config: Any, keep: int | None) -> Any:
    """Return the configuration of a part: as many layers as it has, of the kept layer's type."""
    own = copy.copy(config)
    types = getattr(config, "layer_types", None)
    own.num_hidden_layers = 0 if keep is None else 1
    if types and keep is not None:
        own.layer_types = [types[keep]]
    return own


def _with(module: nn.Module, changes: Mapping[str, nn.Module | None]) -> nn.Module:
    """Return a shallow copy of the module in which the named parts, at any depth, are others."""
    out = copy.copy(module)
    out.__dict__["_modules"] = dict(module._modules)
    for name in {path.split(".")[0] for path in changes}:
        inner = {path.split(".", 1)[1]: new for path, new in changes.items() if path.startswith(f"{name}.")}
        out._modules[name] = _with(module._modules[name], inner) if inner else changes[name]  # type: ignore[arg-type]
    return out


def _at(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


def _packed(hidden: Tensor, mask: Tensor) -> Tensor:
    return torch.cat([hidden, mask.unsqueeze(-1).to(hidden.dtype)], dim=-1)


def _sha256(tokenizer: Any) -> str:
    import hashlib

    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def _sentence_settings(folder: Path) -> dict[str, Any]:
    """What a sentence-transformers folder says of pooling, length and normalisation; empty for other folders."""
    listed = folder / "modules.json"
    if not listed.exists():
        return {}
    out: dict[str, Any] = {"normalise": any(part["type"].endswith("Normalize") for part in json.loads(listed.read_text(encoding="utf-8")))}
    for path, read in ((folder / "1_Pooling" / "config.json", _pooling_of), (folder / "sentence_bert_config.json", _length_of)):
        if path.exists():
            out |= read(json.loads(path.read_text(encoding="utf-8")))
    return out


def _pooling_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
    named = [ours for theirs, ours in modes.items() if plain.get(theirs)] or [plain[k] for k in ("pooling_mode",) if plain.get(k) in POOLINGS]
    if not named:
        raise InputError(f"The sentence encoder pools in a way that is not known here ({', '.join(k for k, v in plain.items() if v is True)}). Say pooling=.")
    return {"pooling": named[0]}


def _length_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {"max_length": int(plain["max_seq_length"])} if plain.get("max_seq_length") else {}


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep the library's own progress bar from drawing through ours."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _library() -> Any:
    try:
        import transformers
    except ImportError:
        raise InputError(f"Networks for text need transformers. Install it: {INSTALL}.") from None
    return transformers
