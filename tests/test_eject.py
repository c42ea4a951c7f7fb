"""A run as a plain script: it runs where Headstart cannot be imported, and reaches the run's own held-out score."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import headstart as hs
from headstart.activations.engines import sample
from headstart.activations.store import Store, default_root
from headstart.core import Backbone, Domain, Preprocess, Source, Task
from headstart.ejected.facts import facts
from headstart.evaluate import holdout, score
from headstart.evidence import cases
from headstart.export import Predictor
from headstart.guard import judge
from headstart.learner import Candidate, learn
from headstart.methods import L2SP, FineTune, FineTuneAll, Probe, Scratch, SimpleImage, SimpleText, Stages, Surgical
from headstart.modality import door
from headstart.modality.original import cut_modules, hidden_states, original
from headstart.result import Arm, Found, Provenance, Result, Score
from headstart.sources import twin
from headstart.views import Views

TINY = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
NETWORKS = [
    {"library": "efficientnet_lite", "variant": 0},
    {"library": "squeezenet"},
    {"library": "timm", "architecture": "resnet18"},
    {"library": "timm", "architecture": "vit_tiny_patch16_224"},
    {"library": "timm", "architecture": "convnext_atto"},
    {"library": "torchvision", "architecture": "alexnet"},
    {"library": "torchvision", "architecture": "densenet121"},
    {"library": "transformers", "config": {"model_type": "bert", **TINY}, "pooling": "mean", "max_length": 16, "normalise": True},
    {"library": "transformers", "config": {"model_type": "llama", "num_key_value_heads": 2, **TINY}, "pooling": "last", "max_length": 16},
]
WHERE = ["north", "south", "harbour", "tower"]


def stripes(root: Path, *, n: int = 20) -> Task:
    """Stripes of two slants under noise in which a network sees them often, not always; some files are transparent, some are grey of 16 bits."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:48, 0:60]
    for name, sign in (("left", 1), ("right", -1)):
        (root / name).mkdir(parents=True)
        for i in range(n):
            wave = np.sin((columns + sign * rows) * generator.uniform(0.3, 0.6) + generator.uniform(0, 6))
            grey = (127 + 32 * wave + generator.normal(0, 40, (48, 60))).clip(0, 255)
            picture = Image.fromarray(grey.astype(np.uint8))
            if i == 0:
                picture = Image.fromarray((grey * 257).astype(np.uint16))
            elif i == 1:
                picture = picture.convert("RGBA")
                picture.putalpha(128)
            picture.save(root / name / f"{i:03d}.png")
    return Task.from_folder(root)


def notes(n: int = 48) -> Task:
    """Sentences whose class is told by one word in most of them."""
    dice = np.random.default_rng(0)
    y = ["calm" if i % 2 else "rough" for i in range(n)]
    words = {"calm": ["quiet", "still", "mild"], "rough": ["stormy", "wild", "harsh"]}
    x = [f"The sea at the {dice.choice(WHERE)} was {dice.choice(words[label if dice.random() < 0.85 else 'calm'])} on day {i}." for i, label in enumerate(y)]
    return Task("classification", "text", Domain("notes", x, y), ("calm", "rough"), columns={"text": "note"})


def shipped(task: Task, candidate: Candidate, *, seed: int = 0) -> Result:
    """What a run would hand over that ships this candidate: fitted on the training part, scored on the held-out part."""
    task, inspection = door(task.modality).inspect(task)
    y = np.asarray(task.codes)
    train, test = holdout([task.labels[c] for c in y], share=0.4, seed=seed)
    table = {} if candidate.source is None else {candidate.source.name: candidate.source}
    views = Views(task.target.x, inspection.digests, table, Store(default_root()), task.modality)
    fitted = learn(candidate, views, train, y, classes=len(task.labels), seed=seed)
    reached = score(y[test], fitted.output(views.array(candidate.view)[test]), classes=len(task.labels))
    source = None if candidate.source is None else candidate.source.name
    told = Score("balanced accuracy", reached, n=len(test))
    arm = Arm(candidate.arm, 0, candidate.method.name, source, candidate.params, told, told, (reached,) * 5)
    found = Found(len(y), "images", {}, inspection.facts, (), 0, (), None, len(train), len(test))
    how = Provenance("", seed, "", {}, "", {}, "torch", "float32", 2)
    parts = (judge([0.5, 0.6], [0.5, 0.4]), found, (), (), (arm,), candidate.arm, (), None, None, (), None, None, None, how, "plan")
    model = Predictor.of(fitted, task, temperature=1.0, reach=0.0)
    return Result(task.target.name, "classification", "balanced accuracy", task.labels, *parts, model=model, cases=cases(task, train, groups=None))


@dataclasses.dataclass(frozen=True)
class Fresh:
    """A small network with random weights and BatchNorm, as ``plan`` hands one to ``Scratch``."""

    recipe: dict[str, object] = dataclasses.field(default_factory=lambda: {"library": "timm", "architecture": "resnet10t"})

    def __call__(self, seed: int) -> Backbone:
        return twin(self.recipe, seed=seed)


def small(folder: Path) -> Source:
    """A ResNet of 64 pixels whose weights, from a file, are random: enough to tell slants apart, and quick."""
    file = folder / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), file)
    look = Preprocess(size=64, crop=0.9, interpolation="bilinear")
    return hs.sources.get(f"timm:resnet10t@{file}", preprocess=look)


def candidates(folder: Path) -> dict[str, tuple[str, Candidate]]:
    net, squeeze, minilm = small(folder), *(hs.sources.get(name) for name in ("squeezenet", "all-MiniLM-L6-v2"))
    fresh = Scratch(Fresh(), side=48, steps=5)
    return {
        "ridge": ("image", Candidate(Probe("ridge"), net)),
        "logistic": ("image", Candidate(Probe("logistic", back=2, span=2), net)),
        "knn": ("image", Candidate(Probe("knn", back=1), squeeze)),
        "stages": ("image", Candidate(Stages(), squeeze)),
        "text stages": ("text", Candidate(Stages(most=2), minilm)),
        "fine-tune": ("image", Candidate(FineTune(steps=8), net)),
        "fine-tune-all": ("image", Candidate(FineTuneAll(steps=5, dropout=0.2), net)),
        "surgical": ("image", Candidate(Surgical("middle", steps=5), net)),
        "scratch": ("image", Candidate(fresh)),
        "svm": ("image", Candidate(SimpleImage("pixels", "svm"))),
        "linear": ("image", Candidate(SimpleImage("handmade", "linear"))),
        "forest": ("image", Candidate(SimpleImage("handmade", "forest"))),
        "text ridge": ("text", Candidate(Probe("ridge", span=2), minilm)),
        "text fine-tune": ("text", Candidate(FineTune(steps=8), minilm)),
        "text linear": ("text", Candidate(SimpleText("words", "linear"))),
        "text svm": ("text", Candidate(SimpleText("chars", "svm"))),
    }


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float, int]]:
    """For each candidate: the run's score, that of its script in a process that cannot import Headstart, and the number of held-out cases."""
    room = tmp_path_factory.mktemp("eject")
    tasks = {"image": stripes(room / "photos"), "text": notes()}
    results = {name: shipped(tasks[modality], candidate) for name, (modality, candidate) in candidates(room).items()}
    scripts = [hs.eject(result, room / f"{name.replace(' ', '_')}.py") for name, result in results.items()]
    barred = (
        "import sys, torch, runpy; torch.set_num_threads(2); sys.modules['headstart'] = None\nfor s in sys.argv[1:]: runpy.run_path(s, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", barred, *map(str, scripts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = re.findall(r"balanced accuracy on (\d+) held-out cases: ([\d.]+) \(the run: ([\d.]+)\)", done.stdout)
    assert len(said) == len(scripts)
    return {name: (float(run), float(script), int(n)) for name, (n, script, run) in zip(results, said, strict=True)}


@pytest.mark.parametrize("name", ["ridge", "logistic", "knn", "stages", "text stages", "svm", "linear", "forest", "text ridge", "text linear", "text svm"])
def test_the_script_of_a_closed_head_reaches_the_score_of_the_run(ran: dict[str, tuple[float, float, int]], name: str) -> None:
    run, script, n = ran[name]
    assert abs(run - script) <= 1 / n + 1e-4  # one case of n: features of other batches differ in their last bits


@pytest.mark.parametrize("name", ["fine-tune", "fine-tune-all", "surgical", "scratch", "text fine-tune"])
def test_the_script_of_a_trained_net_reaches_the_score_of_the_run_within_two_binomial_standard_errors(
    ran: dict[str, tuple[float, float, int]], name: str
) -> None:
    run, script, n = ran[name]
    assert abs(run - script) <= 2 * np.sqrt(max(run * (1 - run), 1 / n) / n)
    assert abs(run - script) <= 2 / n + 1e-4  # batches, dropout and first weights are the run's own, so no more than rounding is left


def test_the_runs_are_neither_chance_nor_perfect_so_that_a_wrong_script_would_show(ran: dict[str, tuple[float, float, int]]) -> None:
    scores = [run for run, *_ in ran.values()]
    assert len({round(s, 3) for s in scores}) > 4
    assert sum(0.55 < s < 1.0 for s in scores) >= 8


def weights_of(recipe: dict[str, object]) -> Backbone:
    """The network with weights that are all random, also where its maker lets blocks begin as identities."""
    body = twin(recipe, seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in body.parameters():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return body


@pytest.mark.parametrize("recipe", NETWORKS, ids=lambda r: str(r.get("architecture", r.get("config", {}).get("model_type", r["library"]))))
def test_the_librarys_network_with_the_renamed_weights_gives_the_features_of_the_stages(recipe: dict[str, object]) -> None:
    found, body = original(recipe, seed=0), weights_of(recipe)
    x, last = sample(body, 1), len(body.stages)
    if found.library != "transformers":
        assert len(set(cut_modules(found, body, (last - 2, last - 1, last), x))) == 3  # each compared bit for bit
        return
    assert hidden_states(found, body, (1, 2, last), x) == [0, 1, -1]
    with torch.inference_mode():
        state = found.net(input_ids=x[..., 0], attention_mask=x[..., 1]).last_hidden_state
        out = body.pooling(torch.cat([state, x[..., 1:].float()], dim=-1))
        assert torch.equal(nn.functional.normalize(out, dim=1) if recipe.get("normalise") else out, body(x))


def test_a_cut_is_the_first_module_whose_output_lies_there() -> None:
    recipe = {"library": "timm", "architecture": "resnet18"}
    body = weights_of(recipe)
    assert cut_modules(original(recipe, seed=0), body, (1, 3, 6), sample(body, 1)) == ["maxpool", "layer2.1.act2", "global_pool.flatten"]


def test_every_layers_rate_stands_in_the_script(tmp_path: Path) -> None:
    method = FineTune(steps=4, rate=1e-3, decay=0.5)
    result = shipped(stripes(tmp_path / "photos", n=6), Candidate(method, hs.sources.get("efficientnet_lite0")))
    known = facts(result, result.save(tmp_path / "run"))
    rates = {own: rate for _, own, rate in known["layers"]}
    assert rates == {**dict.fromkeys(["conv_stem.", "bn1.", *(f"blocks.{i}." for i in range(6))], 0.0), "blocks.6.": 5e-4, "conv_head.": 1e-3, "bn2.": 1e-3}
    text = hs.eject(tmp_path / "run", tmp_path / "script.py").read_text()
    assert '("stages.blocks6.", "blocks.6.", 0.0005),' in text.replace("'", '"')
    assert "HEAD_RATE = 0.001" in text


def test_a_damaged_file_of_weights_is_not_used(tmp_path: Path) -> None:
    result = shipped(stripes(tmp_path / "photos", n=6), Candidate(Probe(), hs.sources.get("squeezenet")))
    script = hs.eject(result, tmp_path / "script.py")
    weights = tmp_path / "script.run" / "model" / "backbone.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not the file that this script was written for" in done.stderr


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    task, source = stripes(tmp_path / "photos", n=6), hs.sources.get("squeezenet")
    result = shipped(task, Candidate(Probe(), source))
    refusals = {
        "which inputs it trained on": dataclasses.replace(result, cases=()),
        "predicts numbers": dataclasses.replace(result, labels=()),
        "about a table": dataclasses.replace(result, model=dataclasses.replace(result.model, modality="tabular")),
        "of the kind 'onnx'": dataclasses.replace(result, model=dataclasses.replace(result.model, recipe={"library": "onnx"})),
        "'l2-sp' trains in a way of its own": shipped(task, Candidate(L2SP(steps=2), source)),
    }
    for words, one in refusals.items():
        with pytest.raises(hs.InputError, match=words) as refused:
            facts(one, tmp_path)
        assert "\n" not in str(refused.value)
    with pytest.raises(hs.InputError, match="no run of headstart transfer"):
        hs.eject(tmp_path / "nowhere")
