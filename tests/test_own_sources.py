"""A user's own sources: a TOML file, an installed package. Nothing is opened to list them, and what is wrong is named with its line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from headstart import sources
from headstart.core import InputError, Preprocess
from headstart.modality import families, weights


@pytest.fixture
def toml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of sources beside weights, which the process is told of."""
    save_file(families._made("timm", "mobilenetv3_small_050", None).state_dict(), tmp_path / "w.safetensors")
    path = tmp_path / "mine.toml"
    path.write_text('[sources.our-net]\nnetwork = "timm:mobilenetv3_small_050@w.safetensors"\ntrained_on = "our cells"\nlicence = "internal"\n')
    monkeypatch.setenv("HEADSTART_SOURCES", str(path))
    return path


@pytest.mark.usefixtures("toml")
def test_a_users_file_adds_sources() -> None:
    source = sources.get("our-net")
    assert (source.name, source.trained_on, source.licence, source.dim) == ("our-net", "our cells", "internal", 1024)
    assert source == next(s for s in sources.available() if s.name == "our-net")


def test_listing_opens_no_weights(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "read_state", lambda path: pytest.fail("weights were read"))
    listed = next(s for s in sources.catalogue() if s.name == "our-net")
    assert (listed.trained_on, listed.opener is None) == ("our cells", False)
    (toml.parent / "w.safetensors").unlink()
    missing = next(s for s in sources.catalogue() if s.name == "our-net")
    assert missing.opener is None
    assert "our-net" not in {s.name for s in sources.available()}
    assert f"which {toml} names, is not here yet" in missing.origin


def test_a_network_that_is_on_no_hubs_cache_is_listed_as_not_here_and_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[sources.a]\nnetwork = 'hf:someone/bert'\n[sources.b]\nnetwork = 'torchvision:ResNet18_Weights.IMAGENET1K_V1'\n")
    monkeypatch.setenv("HEADSTART_SOURCES", str(tmp_path / "mine.toml"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("headstart.sources.hub.why_offline", lambda url: pytest.fail("the network was asked"))
    listed = {s.name: s for s in sources.catalogue()}
    assert [(listed[name].opener, listed[name].modality) for name in "ab"] == [(None, "text"), (None, "image")]


@pytest.mark.usefixtures("toml")
def test_a_listed_source_runs_without_being_opened_by_name() -> None:
    listed, opened = next(s for s in sources.catalogue() if s.name == "our-net"), sources.get("our-net")
    assert listed.weights_sha256 == opened.weights_sha256
    assert torch.equal(listed.backbone.stages["stem"][0].weight, opened.backbone.stages["stem"][0].weight)


def test_preprocessing_and_labels_can_be_stated_and_a_twin_keeps_the_preprocessing(toml: Path) -> None:
    table = "labels = ['a', 'b']\n[sources.our-net.preprocess]\nsize = 160\ncrop = 1.0\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\nchannels = 'BGR'\n"
    toml.write_text(toml.read_text() + table)
    source, wanted = sources.get("our-net"), Preprocess(160, 1.0, mean=(0.5,) * 3, std=(0.5,) * 3, channels="BGR")
    assert (source.backbone.preprocess, source.labels) == (wanted, ("a", "b"))
    assert sources.twin(source.recipe, seed=1).preprocess == wanted
    assert sources.get("timm:mobilenetv3_small_050@" + str(toml.parent / "w.safetensors")).backbone.preprocess != wanted


def test_files_are_looked_for_here_and_in_the_users_folder_and_the_nearest_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config" / "headstart"
    config.mkdir(parents=True)
    (config / "sources.toml").write_text("[sources.a]\nnetwork = 'far.onnx'\n[sources.b]\nnetwork = 'b.onnx'\n")
    (tmp_path / "headstart.toml").write_text("[sources.a]\nnetwork = 'near.onnx'\n")
    monkeypatch.delenv("HEADSTART_SOURCES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    found = {entry.name: entry.network for entry in sources.user.entries()}
    assert found == {"a": "near.onnx", "b": str(config / "b.onnx")}


BAD = [
    ("[sources.a\n", "mine.toml, line 1: Expected ']' at the end of a table declaration. Mend it there; a source begins with [sources.NAME]."),
    ("# ours\n\n[sources.a]\nnetwork = timm\n", "mine.toml, line 4: Invalid value. Mend it there; a source begins with [sources.NAME]."),
    ("[sources.a]\nlicence = 'x'\n", "mine.toml, line 1: [sources.a] needs network: a text, such as 'timm:resnet50@ours.pth'."),
    (
        "[sources.b]\nnetwork = 'x.onnx'\n\n[sources.a]\nnetwork = 'x.onnx'\nlicense = 'x'\n",
        "mine.toml, line 6: [sources.a] does not know 'license'. Did you mean licence? Fields: labels, licence, network, preprocess, trained_on.",
    ),
    ("[sources.a]\nnetwork = 5\n", "mine.toml, line 2: [sources.a] has 5 for network. Write a text, such as 'timm:resnet50@ours.pth'."),
    (
        "[sources.a]\nnetwork = 'x.onnx'\n[sources.a.preprocess]\nsize = 224\nmeans = [0.5]\n",
        "mine.toml, line 3: there is no 'means' in a preprocessing. Fields: size, crop, interpolation, mean, std, channels.",
    ),
    (
        "[sources.a]\nnetwork = 'x.onnx'\npreprocess = {size = 'large'}\n",
        "mine.toml, line 3: size is 'large'. Write it like 224.",
    ),
    ("sources = 3\n", "mine.toml, line 1: sources is no table. Begin each source with [sources.NAME]."),
    ("[sources.a]\nnetwork = 'gym:x'\n", "Source 'a' of mine.toml: 'gym:x' names no hub. Write timm:ARCHITECTURE, torchvision:WEIGHTS or hf:REPOSITORY,"),
    ("[sources.squeezenet]\nnetwork = 'x.onnx'\n", "Two sources are called 'squeezenet': ndf and"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_a_bad_file_of_sources_is_refused_by_line(content: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(content)
    monkeypatch.setenv("HEADSTART_SOURCES", str(tmp_path / "mine.toml"))
    with pytest.raises(InputError) as caught:
        sources.catalogue()
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(message)
    assert "\n" not in str(caught.value)


def test_a_file_that_the_variable_names_and_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_SOURCES", "none.toml")
    with pytest.raises(InputError, match=r"^HEADSTART_SOURCES names none.toml, which is no file. Correct it, or unset it.$"):
        sources.catalogue()


CODE = """
from torch import nn
from headstart.core import Source
from headstart.sources import from_module

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

def made():
    return [Source("from-a-package", modality="text"), from_module(net(), ["0+1"], name="net-of-a-package", factory="zoo_of_ours:net")]

one = Source("one")
wrong = ["net"]
"""


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installed package with code and entry points; returns the file of its entry points."""
    info = tmp_path / "zoo_of_ours-1.0.dist-info"
    info.mkdir()
    (tmp_path / "zoo_of_ours.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-of-ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headstart.sources]\nzoo = zoo_of_ours:made\nalone = zoo_of_ours:one\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "zoo_of_ours", raising=False)
    return info / "entry_points.txt"


@pytest.mark.usefixtures("package")
def test_an_installed_package_adds_sources_by_entry_point() -> None:
    assert [s.name for s in sources.catalogue()][-3:] == ["one", "from-a-package", "net-of-a-package"]
    assert sources.get("net-of-a-package").dim == 4


def test_a_model_that_a_package_makes_is_rebuilt_by_another_process_without_a_word_from_the_user(package: Path) -> None:
    recipe = dict(sources.get("net-of-a-package").recipe)
    program = f"import sys; sys.path.insert(0, {str(package.parent.parent)!r})\nfrom headstart import sources\nprint(sources.twin({recipe!r}, seed=0).dim)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "4\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "zoo = zoo_of_ours:none",
            r"^The entry point 'zoo' \(zoo_of_ours:none\) of zoo-of-ours does not load \(.*none.*\). Repair or uninstall that package.$",
        ),
        ("zoo = zoo_of_yours:made", r"^The entry point 'zoo' \(zoo_of_yours:made\) of zoo-of-ours does not load \(No module named 'zoo_of_yours'\)."),
        (
            "zoo = zoo_of_ours:wrong",
            r"^The entry point 'zoo' \(zoo_of_ours:wrong\) of zoo-of-ours gives str; a headstart.Source, or a list of them, is needed.",
        ),
    ],
)
def test_a_package_whose_offer_is_broken_is_named(line: str, message: str, package: Path) -> None:
    package.write_text(f"[headstart.sources]\n{line}\n")
    with pytest.raises(InputError, match=message):
        sources.catalogue()
