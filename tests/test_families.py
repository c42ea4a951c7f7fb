"""Every vision family as stages: composed they are the original network bit for bit, and every cut rejoins exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision.models
from PIL import Image

from headstart.core import InputError, Preprocess
from headstart.modality import families, image
from headstart.modality.cutting import tail

# the smallest member of each family, and an input that is as small as its architecture allows
SMALLEST = {
    ("timm", "resnet18"): 64,
    ("timm", "resnext50_32x4d"): 64,
    ("timm", "vgg11"): 224,
    ("timm", "densenet121"): 64,
    ("timm", "mobilenetv1_100"): 64,
    ("timm", "mobilenetv2_050"): 64,
    ("timm", "mobilenetv3_small_050"): 64,
    ("timm", "mobilenetv4_conv_small"): 64,
    ("timm", "efficientnet_b0"): 64,
    ("timm", "tf_efficientnet_lite0"): 64,
    ("timm", "tf_efficientnetv2_b0"): 64,
    ("timm", "convnext_atto"): 64,
    ("timm", "regnetx_002"): 64,
    ("timm", "vit_tiny_patch16_224"): 224,
    ("timm", "deit_tiny_patch16_224"): 224,
    ("timm", "deit_tiny_distilled_patch16_224"): 224,
    ("timm", "vit_small_patch14_dinov2"): 518,
    ("timm", "swin_tiny_patch4_window7_224"): 224,
    ("timm", "swinv2_cr_tiny_ns_224"): 224,
    ("timm", "swinv2_tiny_window8_256"): 256,
    ("torchvision", "alexnet"): 64,
    ("torchvision", "vgg11"): 32,
    ("torchvision", "vgg11_bn"): 32,
    ("torchvision", "resnet18"): 64,
    ("torchvision", "wide_resnet50_2"): 32,
    ("torchvision", "densenet121"): 64,
    ("torchvision", "mobilenet_v2"): 64,
    ("torchvision", "mobilenet_v3_small"): 64,
    ("torchvision", "efficientnet_b0"): 64,
    ("torchvision", "efficientnet_v2_s"): 64,
    ("torchvision", "convnext_tiny"): 64,
    ("torchvision", "regnet_x_400mf"): 64,
    ("torchvision", "vit_b_16"): 224,
    ("torchvision", "swin_t"): 64,
    ("torchvision", "swin_v2_t"): 64,
}
EVERY = pytest.mark.parametrize(("library", "name"), SMALLEST)


def original(library: str, name: str) -> Any:
    torch.manual_seed(1)
    net = (timm.create_model(name) if library == "timm" else torchvision.models.get_model(name)).eval()
    for weight in (w for w in net.parameters() if w.ndim == 1):
        torch.nn.init.uniform_(weight, 0.5, 1.5)  # why: as they are drawn, a norm behind a norm changes nothing
    return net


def pictures(library: str, name: str, *, channels: int = 3) -> torch.Tensor:
    side = SMALLEST[library, name]
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


@EVERY
def test_stages_are_the_original_and_every_cut_rejoins(library: str, name: str) -> None:
    net, x = original(library, name), pictures(library, name)
    body = families.build(library, name, state=net.state_dict())
    with torch.inference_mode():
        feature = body(x)
        assert feature.shape == (2, body.dim)
        if body.classifier is not None:
            assert torch.equal(body.classifier(feature), net(x))
        else:
            assert torch.equal(feature, net.forward_head(net.forward_features(x), pre_logits=True))
        activation, pooled = x, []
        for cut, stage in enumerate(body.stages.values(), 1):
            activation = stage(activation)
            pooled.append(body.pooling(activation))
            assert pooled[-1].ndim == 2
            assert torch.equal(body.above(cut)(activation), feature)
    assert len(body.stages) >= 5
    assert tail(body.stages) == sum(f.shape == feature.shape and torch.allclose(f, feature, atol=1e-6) for f in pooled[:-1])


@pytest.mark.parametrize(("library", "name"), [key for key in SMALLEST if key[1] in {"resnet18", "alexnet", "vit_tiny_patch16_224", "swin_t", "convnext_atto"}])
def test_one_channel_is_the_same_grey_in_three_and_four_are_taken(library: str, name: str) -> None:
    state = original(library, name).state_dict()
    three, one, four = (families.build(library, name, state=state, channels=c) for c in (3, 1, 4))
    grey = pictures(library, name, channels=1)
    with torch.inference_mode():
        assert torch.allclose(one(grey), three(grey.repeat(1, 3, 1, 1)), rtol=1e-3, atol=1e-3)
        assert four(pictures(library, name, channels=4)).shape == (2, four.dim)
    assert (one.preprocess.channels, four.preprocess.channels) == ("L", "RGBA")


@pytest.mark.parametrize(
    ("library", "name", "look"),
    [
        ("torchvision", "resnet50", (224, 256, "bilinear", 0.485)),  # IMAGENET1K_V1 of the library's own table
        ("torchvision", "efficientnet_b3", (300, 320, "bicubic", 0.485)),
        ("torchvision", "swin_v2_t", (256, 260, "bicubic", 0.485)),
        ("timm", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", (224, 248, "bicubic", 0.5)),
        ("timm", "resnet50.a1_in1k", (224, 235, "bicubic", 0.485)),
    ],
)
def test_preprocessing_is_the_weights_own(library: str, name: str, look: tuple[int, int, str, float]) -> None:
    made = families._preprocess(library, name, families._made(library, name, None), 3)
    assert (made.size, made.resize, made.interpolation, made.mean[0]) == look


def test_most_architectures_of_both_libraries_can_be_cut() -> None:
    assert len(families.names("torchvision")) >= 65
    assert len(families.names("timm")) >= 500


def test_imagenet_labels_are_in_the_classifiers_order() -> None:
    names = families.labels("timm", "resnet50.a1_in1k")
    assert (len(names), names[281], names[985]) == (1000, "tabby", "daisy")
    assert families.labels("timm", "vit_tiny_patch16_224.augreg_in21k") == ()


@pytest.mark.parametrize(
    ("library", "name", "message"),
    [
        ("timm", "resnet5O", "timm has no architecture 'resnet5O'. Did you mean resnet50"),
        ("torchvision", "vgg_16", "torchvision has no architecture 'vgg_16'. Did you mean vgg16"),
        ("torchvision", "googlenet", "torchvision has 'googlenet', but its family cannot be cut into stages yet. Known: alexnet,"),
        ("keras", "vgg16", "There is no library 'keras' of vision networks. Say timm or torchvision."),
    ],
)
def test_an_unknown_architecture_is_answered_with_near_ones(library: str, name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        families.build(library, name)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("channels", "kind"), [(1, "L"), (4, "RGBA")])
def test_images_are_read_with_the_channels_that_a_backbone_takes(channels: int, kind: str) -> None:
    body = families.build("timm", "resnet18", channels=channels)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 280, 4), dtype=np.uint8)
    whole = image.encode(pixels, body)
    assert whole.shape == (channels, 224, 224)
    if kind == "RGBA":
        assert torch.equal(image.encode(pixels[..., :3].copy(), body)[3], torch.full((224, 224), 255, dtype=torch.uint8))
    assert image.collate([whole, whole], body).shape == (2, channels, 224, 224)


def test_grey_is_pillows() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(image.grey(torch.tensor(pixels).permute(2, 0, 1))[0].numpy(), np.asarray(Image.fromarray(pixels).convert("L")))


def test_five_channels_are_refused() -> None:
    with pytest.raises(InputError, match="Images of 5 channels cannot be read"):
        Preprocess().with_channels(5)
