"""Local folders and files as sources."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from headstart.core import InputError, Preprocess, Source

WEIGHT_FILES = {".safetensors", ".pt", ".pth", ".bin", ".ckpt"}
PICKLES = {".pkl", ".pickle", ".joblib"}


def from_path(name: str) -> Source | None:
    """Return the source that lies at a path; ``None`` where the name is no path. Raises ``InputError`` where what lies there cannot be one."""
    path = Path(name)
    if path.suffix in PICKLES:
        raise InputError(f"{path} is a pickle: reading it would run whatever code is in it. Save the weights as .safetensors.")
    if path.suffix in WEIGHT_FILES:
        raise InputError(f"{path} holds weights, not an architecture. Name both, such as timm:resnet50@{path}.")
    if path.suffix == ".onnx":
        return onnx_source(name, path)
    if path.is_dir() and (path / "config.json").exists():
        return text_source(name, path)
    return None


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
        digest=lambda: _folder_sha256(folder),
        recipe=body.recipe,
    )


def onnx_source(name: str, path: Path, *, preprocess: Preprocess | None = None) -> Source:
    """Return the source of an ONNX file that takes images: frozen features only, for there is nothing to train in it."""
    from headstart.modality import onnx

    body = onnx.frozen(path, preprocess=preprocess)
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return Source(
        name=name,
        family="ONNX",
        parameters=0,
        dim=body.dim,
        stages=body.cuts[1:],
        trained_on="as its maker says",
        licence="as its maker says",
        origin=str(path),
        opener=lambda: body,
        digest=lambda: sha256,
        recipe=onnx.recipe(body),
    )


def _folder_sha256(folder: Path) -> str:
    """Hash the files that decide the numbers: configuration, weights and tokenizer."""
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".bin", ".gguf", ".txt", ".model"}):
        with path.open("rb") as content:
            whole.update(json.dumps([path.name, hashlib.file_digest(content, "sha256").hexdigest()]).encode())
    return whole.hexdigest()
