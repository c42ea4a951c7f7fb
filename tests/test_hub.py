"""Hubs: what is here is used, what is not is answered at once, and a download is resumed and verified. The server runs in this process."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from headstart import sources
from headstart.core import InputError
from headstart.modality import families
from headstart.sources import download, hub
from headstart.sources.download import Remote, fetch

CONTENT = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BREAK = 2**20 + 100  # bytes after which a connection breaks


def no_bar(there: int, total: int | None) -> None:
    pass


@dataclasses.dataclass
class Hub:
    """What the server in this process offers, what it was asked, and how many of its answers break off."""

    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = dataclasses.field(default_factory=list)
    breaks: int = 0
    etags: dict[str, str] = dataclasses.field(default_factory=dict)
    address: str = ""

    def ranges(self) -> list[str | None]:
        return [wanted for method, path, wanted in self.asked if method == "GET" and not path.startswith("/api/")]


def etag(name: str, content: bytes) -> str:
    """The hash by which a hub knows a file: SHA-256 of large ones, git's SHA-1 of small ones."""
    return hashlib.sha256(content).hexdigest() if name.endswith(".safetensors") else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def served() -> Iterator[Hub]:
    """A server of files with ranges, at ``/NAME``, and as Hugging Face's hub does it, at ``/OWNER/NAME/resolve/REVISION/FILE``."""
    state = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.command, self.path, wanted))
            if self.path.startswith("/api/models/"):
                return self.repository(self.path.removeprefix("/api/models/").split("/revision/")[0])
            name = re.sub(r"/resolve/[^/]+/", "/", self.path.lstrip("/"))
            content = state.files.get(name)
            if content is None:
                return self.send(404, {"X-Error-Code": "EntryNotFound"}, b"")
            start = int(re.findall(r"\d+", wanted)[0]) if wanted else 0
            if start >= len(content) > 0:
                return self.send(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            about = {"ETag": f'"{state.etags.get(name, etag(name, content))}"', "X-Repo-Commit": "a" * 40}
            self.send(206 if wanted else 200, about, content[start:], body=body, cut=body and state.breaks > 0)
            state.breaks -= body
            return None

        def repository(self, name: str) -> None:
            files = [path.removeprefix(f"{name}/") for path in state.files if path.startswith(f"{name}/")]
            about = {"id": name, "sha": "a" * 40, "siblings": [{"rfilename": file} for file in files]}
            found = 200 if files else 404
            self.send(found, {"Content-Type": "application/json", **({} if files else {"X-Error-Code": "RepoNotFound"})}, json.dumps(about).encode())

        def send(self, code: int, headers: dict[str, str], content: bytes, *, body: bool = True, cut: bool = False) -> None:
            self.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content[:BREAK] if cut else content)

        def log_message(self, *words: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        state.address = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def hugging(served: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """The same, as the hub that huggingface_hub asks, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", served.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return served


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".locks" not in p.parts)


def test_a_download_shows_progress_and_is_verified(served: Hub, tmp_path: Path) -> None:
    served.files["w.pth"] = CONTENT
    seen: list[tuple[int, int | None]] = []
    path = fetch(Remote(f"{served.address}/w.pth", SHA256[:8]), tmp_path / "w.pth", progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [there for there, _ in seen] == sorted(there for there, _ in seen)
    assert files_in(tmp_path) == ["w.pth"]


def test_a_broken_connection_is_continued_where_it_broke(served: Hub, tmp_path: Path) -> None:
    served.files["w.pth"], served.breaks = CONTENT, 2
    assert fetch(Remote(f"{served.address}/w.pth", SHA256[:8]), tmp_path / "w.pth", progress=no_bar).read_bytes() == CONTENT
    assert served.ranges() == [None, f"bytes={BREAK}-", f"bytes={2 * BREAK}-"]


def test_a_download_that_was_killed_is_continued_by_the_next_run(served: Hub, tmp_path: Path) -> None:
    served.files["w.pth"] = CONTENT
    program = (
        "import os, sys; from pathlib import Path; from headstart.sources.download import Remote, fetch\n"
        "fetch(Remote(sys.argv[1]), Path(sys.argv[2]), progress=lambda there, total: os._exit(9) if there > 2**20 else None)"
    )
    killed = subprocess.run([sys.executable, "-c", program, f"{served.address}/w.pth", str(tmp_path / "w.pth")], check=False)
    kept = (tmp_path / "w.pth.part").stat().st_size
    assert (killed.returncode, (tmp_path / "w.pth").exists()) == (9, False)
    assert 0 < kept < len(CONTENT)
    assert fetch(Remote(f"{served.address}/w.pth", SHA256[:8]), tmp_path / "w.pth", progress=no_bar).read_bytes() == CONTENT
    assert served.ranges() == [None, f"bytes={kept}-"]


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_run_that_was_killed_before_the_check_is_checked_by_the_next(size: int | None, served: Hub, tmp_path: Path) -> None:
    served.files["w.pth"] = CONTENT
    (tmp_path / "w.pth.part").write_bytes(CONTENT)
    assert fetch(Remote(f"{served.address}/w.pth", SHA256, size), tmp_path / "w.pth", progress=no_bar).read_bytes() == CONTENT
    assert served.ranges() == ([f"bytes={len(CONTENT)}-"] if size is None else [])


def test_a_part_of_something_longer_is_thrown_away(served: Hub, tmp_path: Path) -> None:
    served.files["w.pth"] = CONTENT
    (tmp_path / "w.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(Remote(f"{served.address}/w.pth", SHA256), tmp_path / "w.pth", progress=no_bar).read_bytes() == CONTENT


def test_a_connection_that_brings_nothing_is_given_up_and_what_came_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("headstart.sources.download.time.sleep", lambda seconds: None)
    (tmp_path / "w.pth.part").write_bytes(CONTENT[:1_500_000])
    with pytest.raises(InputError, match=r"stopped at 1\.5 of 2\.3 MB \(.*refused.*\)\. Run the same command again: it goes on from there\.$"):
        fetch(Remote("http://127.0.0.1:9/w.pth", size=len(CONTENT)), tmp_path / "w.pth", progress=no_bar)
    assert files_in(tmp_path) == ["w.pth.part"]


def test_content_with_another_hash_is_refused_and_not_kept(served: Hub, tmp_path: Path) -> None:
    served.files["w.pth"] = CONTENT
    with pytest.raises(InputError, match=rf"its hash begins with {SHA256[:8]}, not with 00000000. Nothing was kept"):
        fetch(Remote(f"{served.address}/w.pth", "00000000"), tmp_path / "w.pth", progress=no_bar)
    assert files_in(tmp_path) == []


def test_what_a_server_refuses_is_said(served: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/none.pth answers 404 Not Found. Check the name, and that you may read it.$"):
        fetch(Remote(f"{served.address}/none.pth"), tmp_path / "none.pth", progress=no_bar)
    assert files_in(tmp_path) == []


@pytest.fixture
def published(hugging: Hub, tmp_path: Path) -> dict[str, torch.Tensor]:
    """timm's smallest MobileNetV3 with random weights, on the hub."""
    state = families._made("timm", "mobilenetv3_small_050", None).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    hugging.files["timm/mobilenetv3_small_050.lamb_in1k/model.safetensors"] = (tmp_path / "model.safetensors").read_bytes()
    return dict(state)


def test_weights_of_timm_come_from_the_hub_once_and_then_from_its_cache(
    hugging: Hub, published: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hugging.breaks = 1
    first = sources.get("timm:mobilenetv3_small_050.lamb_in1k")
    assert torch.equal(first.backbone.stages["stem"][0].weight, published["conv_stem.weight"])
    assert hugging.ranges() == [None, f"bytes={BREAK}-"]
    (blob,) = (tmp_path / "cache").glob("models--timm--mobilenetv3_small_050.lamb_in1k/blobs/*")
    assert blob.name == first.weights_sha256
    assert huggingface_hub.scan_cache_dir(tmp_path / "cache").warnings == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hugging.asked.clear()
    assert sources.get("timm:mobilenetv3_small_050").weights_sha256 == first.weights_sha256
    assert hugging.asked == []


@pytest.mark.usefixtures("published")
def test_weights_that_are_not_what_the_hub_says_are_refused_and_not_kept(hugging: Hub, tmp_path: Path) -> None:
    hugging.etags["timm/mobilenetv3_small_050.lamb_in1k/model.safetensors"] = "0" * 64
    with pytest.raises(InputError, match=r"is not the file that was expected: its hash begins with [0-9a-f]{8}, not with 00000000. Nothing was kept."):
        sources.get("timm:mobilenetv3_small_050.lamb_in1k")
    assert not any("snapshots" in name or "blobs" in name for name in files_in(tmp_path / "cache"))


@pytest.fixture
def small_bert(hugging: Hub, tmp_path: Path) -> Path:
    """A tiny BERT with a tokenizer, in a folder and on the hub, among files of other formats."""
    import transformers

    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, max_position_embeddings=16)
    transformers.BertModel(config).save_pretrained(folder)
    for path in folder.iterdir():
        hugging.files[f"someone/tiny-bert/{path.name}"] = path.read_bytes()
    hugging.files |= {f"someone/tiny-bert/{name}": b"large" for name in ("onnx/model.onnx", "onnx/model.safetensors", "tf_model.h5", "pytorch_model.bin")}
    return folder


@pytest.mark.usefixtures("small_bert")
def test_a_text_network_comes_from_the_hub_without_its_other_formats_and_then_from_the_cache(
    hugging: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = sources.get("hf:someone/tiny-bert")
    assert (source.modality, source.dim, source.family) == ("text", 8, "bert")
    fetched = {path.rsplit("/", 1)[1] for method, path, _ in hugging.asked if method == "GET" and "resolve" in path}
    assert {"config.json", "model.safetensors"} <= fetched
    assert not fetched & {"model.onnx", "tf_model.h5", "pytorch_model.bin"}
    assert not [name for name in files_in(tmp_path / "cache") if "onnx" in name]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hugging.asked.clear()
    assert sources.get("hf:someone/tiny-bert").weights_sha256 == source.weights_sha256
    assert hugging.asked == []


def test_a_folder_of_which_only_the_tokenizer_is_cached_is_completed(hugging: Hub, small_bert: Path) -> None:
    from huggingface_hub import constants, hf_hub_download

    for name in ("config.json", "tokenizer.json"):
        hf_hub_download("someone/tiny-bert", name, endpoint=hugging.address, cache_dir=constants.HF_HUB_CACHE)
    assert sources.get("hf:someone/tiny-bert").parameters == sum(p.numel() for p in sources.get(str(small_bert)).backbone.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:someone/nothing", r"^The hub has no hf:someone/nothing, or does not show it to you. Check the name; for a private one log in: hf auth login$"),
        ("hf:some one/a?", r"^'some one/a\?' is no name of a repository. Write hf:OWNER/NAME, or hf:OWNER/NAME@REVISION.$"),
        (
            "hf:someone/only-onnx",
            r"^hf:someone/only-onnx holds no config.json with weights in safetensors. Choose another repository, or give a local folder.$",
        ),
        ("timm:mobilenetv3_small_075.lamb_in1k", r"^timm:mobilenetv3_small_075.lamb_in1k is not on the hub in this revision or form \([^\n]*$"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(name: str, message: str, hugging: Hub) -> None:
    hugging.files["someone/only-onnx/onnx/model.onnx"] = b"x"
    with pytest.raises(InputError, match=message):
        sources.get(name)


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


@pytest.mark.parametrize("resolver_waits", [False, True])
def test_a_hub_that_does_not_answer_is_known_within_seconds(resolver_waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def wait(*arguments: object, **options: object) -> None:
        over.wait(20)  # as a look-up of names does on a machine without network
        raise OSError("no such name")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(download, "PROBE", 0.3)
    if resolver_waits:
        monkeypatch.setattr(download.socket, "create_connection", wait)
    began = time.monotonic()
    with pytest.raises(InputError, match="timm:x is not on this machine, and its hub cannot be reached"):
        hub._require_network("timm:x", "http://127.0.0.1:9/")
    assert time.monotonic() - began < 2
    over.set()


def test_where_a_proxy_is_set_the_proxy_is_asked(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", served.address)
    assert download.why_offline("http://hub.invalid/") is None
    monkeypatch.setenv("http_proxy", "127.0.0.1:9")
    assert download.why_offline("http://hub.invalid/") == "its hub cannot be reached"


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
