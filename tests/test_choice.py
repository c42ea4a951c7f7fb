"""The choice of an engine: by speed among those that agree, remembered, kept on resume, and never by a clock alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart import choice
from headstart.activations import costs, engines
from headstart.activations.store import Store
from headstart.choice import Agreement, Choice, Chooser, told
from headstart.core import InputError
from headstart.modality.image import digest

N = 40


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Stripes of two slants, of which half are bright."""
    y, x = np.mgrid[0:48, 0:48]
    dice = np.random.default_rng(0)
    waves = [np.sin((x + (1 if i % 2 else -1) * y) * dice.uniform(0.3, 0.6)) for i in range(N)]
    return [np.repeat((127 + 60 * w + dice.normal(0, 20, w.shape)).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2) for w in waves]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def chooser(
    images: list[np.ndarray], store: Store, asked: str = "auto", *, folder: Path | None = None, classes: int = 2, said: list[str] | None = None
) -> Chooser:
    y = np.arange(N) % 2 if classes else np.array([float(image.std()) for image in images])
    said = [] if said is None else said
    return Chooser(asked, images, [digest(i) for i in images], y, np.arange(N), classes, store, folder, said.append)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Speeds that this machine is said to remember, so that no clock decides a test; and forty inputs are many."""
    table = {"torch": 5e-3, "torch-bf16": 3e-3, "openvino": 2e-3, "openvino-bf16": 1e-3}
    monkeypatch.setattr(choice, "FEWEST", N)
    monkeypatch.setattr(choice, "speeds", lambda root, key: table)
    return table


def test_few_inputs_run_on_plain_pytorch_unmeasured(images, store) -> None:
    said: list[str] = []
    one = chooser(images, store, said=said)
    assert one(hs.sources.get("squeezenet")) == "torch"
    assert (one.choices, said) == ({"squeezenet": Choice()}, [])


def test_engines_are_measured_once_per_machine_and_source(images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "FEWEST", N)
    source, root = hs.sources.get("squeezenet"), tmp_path / "store"
    first = chooser(images, Store(root))
    first(source)
    (plain,) = json.loads((root / costs.COSTS_FILE).read_text()).values()
    (known,) = plain[costs.ENGINES_KEY].values()
    assert set(known) == {e for e in engines.available() if e != "onnxruntime"}
    assert all(s > 0 for s in known.values())
    monkeypatch.setattr(choice._Check, "_seconds", lambda self, engine: pytest.fail("measured again"))  # why: the claim is that it is not called
    assert chooser(images, Store(root))(source) == first(source)


def test_a_cost_that_is_recorded_later_leaves_the_speeds(tmp_path: Path) -> None:
    costs.record_speeds(tmp_path, "key", {"torch": 0.5, "openvino": None})
    costs.record(tmp_path, "weights", seconds=64.0, inputs=64)
    assert costs.speeds(tmp_path, "key") == {"torch": 0.5, "openvino": None}
    assert costs.known(tmp_path) == {"weights": 1.0}
    assert costs.speeds(tmp_path, "other") == {}


def test_the_fastest_that_agrees_is_taken_and_the_report_is_told(images, store, measured) -> None:
    said: list[str] = []
    one = chooser(images, store, said=said)
    assert one(hs.sources.get("squeezenet")) == "openvino-bf16"
    why = one.choices["squeezenet"].why
    assert why.startswith(f"squeezenet ran on {engines.described('openvino')} in bfloat16. Checked on {N} inputs of the training part: cosine 0.99")
    assert "a ridge probe scores" in why
    assert "times" not in why  # what a clock said is for the terminal, not for the result
    assert said == [f"squeezenet runs on {engines.described('openvino')} in bfloat16, 5.0 times as fast as PyTorch in float32"]


def test_one_that_does_not_agree_is_passed_over(images, store, measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choice.ALIKE, "bfloat16", 0.9999999)  # why: no real engine is wrong enough to be refused
    said: list[str] = []
    assert chooser(images, store, said=said)(hs.sources.get("squeezenet")) == "openvino"
    assert said[0].startswith(f"squeezenet does not run on {engines.described('openvino')} in bfloat16: cosine")


def test_an_engine_that_is_hardly_faster_or_cannot_run_is_not_taken(images, store, measured) -> None:
    measured |= {"torch-bf16": 4.9e-3, "openvino": None, "openvino-bf16": None}
    assert chooser(images, store)(hs.sources.get("squeezenet")) == "torch"


@pytest.mark.parametrize("classes", [2, 0])
def test_an_engine_that_is_asked_for_is_checked_not_timed(images, store, monkeypatch: pytest.MonkeyPatch, classes: int) -> None:
    monkeypatch.setattr(choice._Check, "_seconds", lambda self, engine: pytest.fail("timed"))  # why: the claim is that it is not called
    one = chooser(images, store, "openvino", classes=classes)
    assert one(hs.sources.get("squeezenet")) == "openvino"
    assert "cosine 1.00000" in one.choices["squeezenet"].why
    monkeypatch.setitem(choice.ALIKE, "float32", 1.1)
    with pytest.raises(InputError, match=r"openvino departs from PyTorch on squeezenet: cosine .*\. Use --engine auto"):
        chooser(images, store, "openvino", classes=classes)(hs.sources.get("squeezenet"))


def test_a_choice_is_kept_in_the_folder_of_the_run(images, store, measured, tmp_path: Path) -> None:
    source = hs.sources.get("squeezenet")
    first = chooser(images, store, folder=tmp_path)
    first(source)
    measured["openvino-bf16"] = 9.0  # the machine would now choose another
    again = chooser(images, store, folder=tmp_path)
    assert again(source) == "openvino-bf16"
    assert again.choices == first.choices


def test_what_cannot_run_elsewhere_runs_on_pytorch_and_is_told(images, store) -> None:
    source = hs.sources.get("paraphrase-MiniLM-L3-v2")
    one = chooser(images, store, "openvino")
    if source.recipe.get("library") == "onnx":
        assert one(source) == "torch"
        assert one.choices[source.name].why == "paraphrase-MiniLM-L3-v2 ran on PyTorch: openvino cannot run it"
    with pytest.raises(InputError, match="There is no engine 'fast'"):
        chooser(images, store, "fast")


def test_agreement_is_a_bound_on_the_cosine_and_on_the_probe() -> None:
    assert Agreement(0.99, 0.80, 0.80, 128).holds("bfloat16")
    assert not Agreement(0.99, 0.80, 0.80, 128).holds("float32")
    assert not Agreement(0.98, 0.80, 0.80, 128).holds("bfloat16")
    assert Agreement(0.999999, 0.80 - 1 / 128, 0.80, 128).holds("float32")
    assert not Agreement(0.999999, 0.80 - 2 / 128, 0.80, 128).holds("float32")
    assert not Agreement(float("nan"), 0.80, 0.80, 128).holds("bfloat16")


def test_the_report_names_one_engine_or_each() -> None:
    assert told({}) == (engines.described("torch"), "float32, whole activations stored as float16")
    both = told({"a": Choice("torch"), "b": Choice("openvino-bf16")})
    assert both == (
        f"a: {engines.described('torch')}, b: {engines.described('openvino')}",
        "a: float32, b: bfloat16, whole activations stored as float16",
    )


def test_the_whole_job_on_another_engine(tmp_path: Path, images) -> None:
    for i, image in enumerate(images):
        folder = tmp_path / "photos" / ("left" if i % 2 else "right")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    task, source = hs.Task.from_folder(tmp_path / "photos"), hs.sources.get("squeezenet")
    result = hs.transfer(task, [source], budget="20s", seed=0, engine="openvino-bf16", out=tmp_path / "run1")
    assert result.provenance.engine == engines.described("openvino")
    assert result.provenance.dtype.startswith("bfloat16")
    assert any(note.startswith("squeezenet ran on OpenVINO") for note in result.notes)
    with pytest.raises(InputError, match=r"holds another run \(its engine: 'openvino-bf16' there, 'torch' here\)"):
        hs.transfer(task, [source], budget="20s", seed=0, engine="torch", out=tmp_path / "run1")
    saved = json.loads((tmp_path / "run1" / "model" / "model.json").read_text())
    assert saved["engine"] == ("openvino-bf16" if saved["view"]["source"] else "torch")
    again = hs.load(tmp_path / "run1")
    assert again.predict(images[:3]) == result.predict(images[:3])


def test_a_model_whose_engine_is_missing_runs_on_pytorch_and_says_so(tmp_path: Path, images, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart import export

    probe = hs.TransferClassifier(source="squeezenet").fit(images, [i % 2 for i in range(N)])
    view = choice_view("squeezenet")
    model = export.Predictor(("0", "1"), "image", {}, probe.head_, view, hs.sources.get("squeezenet"), {}, 1.0, 0.0, "openvino")
    monkeypatch.setattr(export, "available", lambda: ("torch",))  # why: stands for a machine without OpenVINO
    with pytest.warns(UserWarning, match="made by the engine openvino, which is missing here; PyTorch in float32 runs instead"):
        assert len(model.predict(images[:2])) == 2


def choice_view(name: str):
    from headstart.methods import Probe

    return Probe().view(hs.sources.get(name))
