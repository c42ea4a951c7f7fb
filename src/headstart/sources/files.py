"""Local folders and files as sources."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from headstart.core import Backbone, InputError, Preprocess, Source
from headstart.modality import cutting, families, weights
from headstart.sources.download import sha256

WEIGHT_FILES = {".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt"}
PICKLES = {".pkl", ".pickle", ".joblib"}
KINDS = "a folder with config.json, an .onnx or a .gguf file"


def is_path(name: str) -> bool:
    """Whether a name can only be a path: something lies there, or it ends like a file of weights.

    >>> [is_path(name) for name in ("body.onnx", "timm:resnet50@w.pth", "squeezenet")]
    [True, False, False]
    """
    begins_with_hub = name.split(":")[0] in {"timm", "torchvision", "hf"} and ":" in name
    return not begins_with_hub and (Path(name).suffix.lower() in {*WEIGHT_FILES, *PICKLES, ".onnx", ".gguf"} or "/" in name or Path(name).exists())


def from_path(name: str, *, preprocess: Preprocess | None = None) -> Source:
    """Return the source that lies at a path. Raises ``InputError`` where nothing lies there, or what does cannot be one."""
    path = Path(name)
    if path.suffix.lower() in PICKLES:
        raise InputError(f"{path} is a pickle: reading it would run whatever code is in it. Save the weights as .safetensors.")
    if path.suffix.lower() in WEIGHT_FILES:
        own = "for a module of your own: sources.from_module(..., weights=FILE)"
        raise InputError(f"{path} holds weights, not an architecture. Name both, such as timm:resnet50@{path}; {own}.")
    if path.suffix.lower() == ".onnx":
        return from_onnx(path, name=name, preprocess=preprocess)
    if not path.exists():
        raise InputError(f"{path} does not exist. Give {KINDS}, or a name that is listed by: headstart sources")
    if path.suffix.lower() == ".gguf":
        return text_source(name, path.parent, gguf_file=path.name)
    if (path / "config.json").exists() or (path / "modules.json").exists():
        return folder_source(name, path, preprocess=preprocess)
    raise InputError(f"{path} is no network. Give {KINDS}.")


def folder_source(name: str, folder: Path, *, preprocess: Preprocess | None = None) -> Source:
    """Return the source of a folder as Hugging Face's hub holds it: a text network of transformers, or a vision network of timm."""
    config = folder / "config.json"
    try:
        plain = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{config} cannot be read ({' '.join(str(error).split())}). Get the folder again.") from None
    if "architecture" not in plain:
        return text_source(name, folder)
    said = plain.get("pretrained_cfg", {})
    tagged = f"{plain['architecture']}.{said['tag']}" if said.get("tag") else str(plain["architecture"])
    licence, trained_on = str(said.get("license") or "ask who made it"), str(said.get("tag") or f"as {folder} was")
    return vision_source(name, "timm", tagged, folder / "model.safetensors", trained_on=trained_on, licence=licence, preprocess=preprocess)


def vision_source(
    name: str, library: str, architecture: str, file: Path, *, trained_on: str, licence: str = "ask who made it", preprocess: Preprocess | None = None
) -> Source:
    """Return the source of an architecture with weights from a file; the weights are read at once, so that what does not fit is said at once."""
    state = weights.read_state(file)
    body = families.build(library, architecture, state=state)
    said = {} if preprocess is None else {"preprocess": asdict(preprocess)}
    body.preprocess = preprocess or body.preprocess
    digest = sha256(file)
    whole = body.classifier is not None and getattr(body.classifier, "out_features", 0) == 1000
    return Source(
        name=name,
        family=architecture.split(".")[0],
        parameters=sum(p.numel() for p in body.stages.parameters()),
        dim=body.dim,
        stages=body.cuts[1:],
        trained_on=trained_on,
        licence=licence,
        origin=str(file),
        tune_cuts=families.tune_cuts(body.stages),
        opener=lambda: body,
        digest=lambda: digest,
        labels=families.labels(library, architecture) if whole else (),
        recipe={"library": library, "architecture": architecture, **_classes(body), **said},
        tail=cutting.tail(body.stages),
    )


def text_source(name: str, folder: Path, *, gguf_file: str | None = None) -> Source:
    """Return the source of a local Hugging Face folder with a network for text."""
    from headstart.modality import language

    body = language.from_folder(folder, gguf_file=gguf_file)
    layers = len(body.stages)
    return Source(
        name=name,
        family=str(body.recipe["config"]["model_type"]),
        parameters=sum(p.numel() for p in body.parameters()),
        dim=body.dim,
        stages=body.cuts[1:],
        trained_on="as its model card says",
        licence="as its model card says",
        origin=str(folder),
        modality="text",
        tune_cuts=tuple(sorted({max(1, layers - 3), max(1, layers - 2)})),
        opener=lambda: body,
        digest=lambda: sha256(folder / gguf_file) if gguf_file else _folder_sha256(folder),
        recipe=body.recipe,
        tail=language.tail(body.stages),
    )


def from_onnx(path: str | Path, *, name: str | None = None, preprocess: Preprocess | None = None) -> Source:
    """Return the source of an ONNX file that takes images: frozen features only, for there is nothing to train in it.

    ``preprocess`` is how images were prepared in training; ``None``: as the file's metadata say under "headstart.preprocess".

    Raises
    ------
    InputError
        see :func:`headstart.modality.onnx.frozen`.
    """
    from headstart.modality import onnx

    path = Path(path)
    body = onnx.frozen(path, preprocess=preprocess)
    digest = sha256(path)
    return Source(
        name=name or path.stem,
        family="ONNX",
        parameters=0,
        dim=body.dim,
        stages=body.cuts[1:],
        trained_on="as its maker says",
        licence="as its maker says",
        origin=str(path),
        opener=lambda: body,
        digest=lambda: digest,
        recipe=onnx.recipe(body),
    )


def _folder_sha256(folder: Path) -> str:
    """Hash the files that decide the numbers: configuration, weights, tokenizer, and the pooling of a sentence encoder."""
    whole = hashlib.sha256()
    for path in sorted(p for p in (*folder.glob("*"), *folder.glob("[0-9]_*/*")) if p.suffix in {".json", ".safetensors", ".bin", ".gguf", ".txt", ".model"}):
        whole.update(json.dumps([path.relative_to(folder).as_posix(), sha256(path)]).encode())
    return whole.hexdigest()


def _classes(body: Backbone) -> dict[str, int]:
    classes = getattr(body.classifier, "out_features", 1000)
    return {} if classes == 1000 else {"num_classes": int(classes)}
