"""Hubs: what is here is used, what is not is answered at once, and a download is resumed and verified. The server runs in this process."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart import sources
from headstart.core import InputError
from headstart.sources import hub

CONTENT = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, with ranges; the first answer breaks off after a megabyte where the path says so."""

    asked: list[str | None] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(re.findall(r"\d+", wanted)[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        breaks = "broken" in self.path and not wanted
        self.wfile.write(CONTENT[start : 2**20 + 100 if breaks else None])

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Server.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_download_shows_progress_and_is_verified(address: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = hub.download(f"{address}/w.pth", tmp_path / "w.pth", sha256_prefix=SHA256[:8], progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def test_an_interrupted_download_goes_on_where_it_stopped(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be fetched \(the connection broke off\); 1.0 MiB are kept, and the same command goes on from there"):
        hub.download(f"{address}/broken.pth", tmp_path / "w.pth", sha256_prefix=SHA256[:8])
    kept = (tmp_path / ".w.pth.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    assert hub.download(f"{address}/broken.pth", tmp_path / "w.pth", sha256_prefix=SHA256[:8]).read_bytes() == CONTENT
    assert Server.asked == [None, f"bytes={kept}-"]


def test_content_with_another_hash_is_refused_and_not_kept(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"its SHA-256 begins with {SHA256[:8]}, not 00000000. Nothing was kept"):
        hub.download(f"{address}/w.pth", tmp_path / "w.pth", sha256_prefix="00000000")
    assert not list(tmp_path.iterdir())


OFFLINE = [
    ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k is not on this machine, and HF_HUB_OFFLINE is set. Connect once to fetch it, or give a file of weights:"),
    ("torchvision:ResNet18_Weights.IMAGENET1K_V1", "torchvision:ResNet18_Weights.IMAGENET1K_V1 is not on this machine, and HF_HUB_OFFLINE is set."),
    ("hf:someone/some-bert", "hf:someone/some-bert is not on this machine, and HF_HUB_OFFLINE is set. Connect once to fetch it, or give a local folder."),
]


@pytest.mark.parametrize(("name", "message"), OFFLINE)
def test_offline_a_hubs_name_is_answered_at_once(name: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        sources.get(name)
    assert str(caught.value).startswith(message)
    assert time.monotonic() - began < 20  # of which most is importing the library; a retrying client takes minutes


def test_a_hub_that_does_not_answer_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(InputError, match="its hub cannot be reached"):
        hub._require_network("timm:x", "http://127.0.0.1:9/")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet18.nope", "timm has no weights 'resnet18.nope' on its hub. Tags of resnet18: "),
        ("timm:resnot18", "timm has no architecture 'resnot18'. Did you mean resnet18"),
        ("torchvision:VGG16", "torchvision has no weights 'VGG16'. Write the name of its enumeration, such as"),
    ],
)
def test_a_name_that_the_hub_does_not_have_is_refused_without_a_network(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        sources.get(name)
    assert str(caught.value).startswith(message)


def test_a_file_in_the_local_cache_is_used_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.manual_seed(0)
    net = resnet18().eval()
    (tmp_path / "checkpoints").mkdir()
    torch.save(net.state_dict(), tmp_path / "checkpoints" / ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    source = sources.get("torchvision:ResNet18_Weights.IMAGENET1K_V1")
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(source.backbone.classifier(source.backbone(x)), net(x))
    assert (source.labels[0], source.trained_on) == ("tench", "IMAGENET1K_V1 (1,000 classes)")


def test_a_hugging_face_folder_is_a_source(tmp_path: Path) -> None:
    folder = next(Path(s.opener.args[1]).parent for s in sources.catalogue() if s.name == "all-MiniLM-L6-v2")  # type: ignore[union-attr]
    source = sources.get(str(folder))
    packaged = sources.get("all-MiniLM-L6-v2")
    assert (source.modality, source.dim, source.stages, source.tune_cuts) == ("text", 384, packaged.stages, (5, 6))
    mine, theirs = source.backbone.state_dict(), packaged.backbone.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in theirs)


def test_a_users_file_adds_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from headstart.modality import families

    torch.save(families._made("timm", "mobilenetv3_small_050", None).state_dict(), tmp_path / "w.pt")
    toml = tmp_path / "mine.toml"
    toml.write_text('[sources.our-net]\nnetwork = "timm:mobilenetv3_small_050@w.pt"\ntrained_on = "our cells"\n')
    monkeypatch.setenv("HEADSTART_SOURCES", str(toml))
    source = sources.get("our-net")
    assert (source.trained_on, source.dim) == ("our cells", 1024)
    assert "our-net" in {s.name for s in sources.available()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[sources.a\n", "mine.toml is not TOML: Expected ']' at the end of a table declaration (at line 1, column 11). Mend it there."),
        ("[sources.a]\nlicence = 'x'\n", "mine.toml: [sources.a] needs network. Fields: licence, network, trained_on."),
        ("[sources.a]\nnetwork = 'x'\nlicense = 'x'\n", "mine.toml: [sources.a] does not know 'license'. Fields: licence, network, trained_on."),
    ],
)
def test_a_bad_file_of_sources_is_refused_by_line(content: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(content)
    monkeypatch.setenv("HEADSTART_SOURCES", str(tmp_path / "mine.toml"))
    with pytest.raises(InputError) as caught:
        sources.catalogue()
    assert str(caught.value).replace(f"{tmp_path}/", "") == message


def test_an_installed_package_adds_sources_by_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "zoo_of_ours.py").write_text("from headstart.core import Source\n\ndef made():\n    return [Source('from-a-package', modality='text')]\n")
    info = tmp_path / "zoo_of_ours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-of-ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headstart.sources]\nzoo = zoo_of_ours:made\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "from-a-package" in {s.name for s in sources.catalogue()}
