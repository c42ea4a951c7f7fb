"""Recipes: what builds an architecture without its weights, as plain values that a saved model keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.core import Backbone, InputError, Preprocess


def twin(recipe: Mapping[str, Any], *, seed: int) -> Backbone:
    """Return the architecture that a source's recipe names, with random weights from ``seed``.

    Raises
    ------
    InputError
        the recipe names a library that is not known here, or one that builds nothing without its weights.
    """
    from headstart.modality import families, language, tabular, vision

    library = recipe.get("library")
    rest = {k: v for k, v in recipe.items() if k != "library"}
    if library == "efficientnet_lite":
        return vision.efficientnet_lite(rest["variant"], None, seed=seed)
    if library == "squeezenet":
        return vision.squeezenet(None, seed=seed)
    if library == "wider":
        from headstart.modality import wider

        return wider.network(rest["network"], None, seed=seed)
    if library in families.LIBRARIES:
        said = rest.pop("preprocess", None)
        body = families.build(library, **rest, seed=seed)
        body.preprocess = body.preprocess if said is None else Preprocess.of(said)
        return body
    if library == "transformers":
        return language.from_config(**rest, seed=seed)
    if library == "table":
        return tabular.network(rest["features"], hidden=rest.get("hidden", tabular.HIDDEN), seed=seed)
    if library == "onnx":
        from headstart.modality import onnx

        return onnx.blank(**rest)
    if library == "module":
        return _of_module(rest, seed=seed)
    raise InputError(f"No architecture can be built from {dict(recipe)}. Give the source a recipe whose library is known.")


def _of_module(rest: Mapping[str, Any], *, seed: int) -> Backbone:
    import headstart.sources.modules as modules
    import headstart.sources.user as user

    factory = str(rest["factory"])
    if not modules.is_trusted(factory):
        user.offered()  # why: an installed package that offers the source trusts its own factory in doing so
    network = modules.build(factory, seed=seed)
    return modules.staged(network.eval(), rest["stages"], dim=rest["dim"], preprocess=rest["preprocess"], classifier=rest.get("classifier", ""))
