"""The networks that metrics see with: fixed, told apart, and never fetched unasked."""

from __future__ import annotations

import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import vgx
from vgx.errors import HubError, RecipeError
from vgx.testing import check_part
from vgx_builtin.features.inception import Inception
from vgx_builtin.features.random_conv import RandomConv
from vgx_builtin.features.timm import Timm

IMAGE = vgx.ImageSpec(32)


def random_images(n=3, side=32, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, channels, side, side, generator=generator)


# --- random-conv -------------------------------------------------------------------------------


def test_the_random_network_is_the_same_everywhere():
    """Its weights draw from its seed alone, whatever torch drew before."""
    torch.manual_seed(3)
    one = RandomConv().build(IMAGE).state_dict()
    torch.manual_seed(4)
    two = RandomConv().build(IMAGE).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["weight_0"].flatten()[0].item() == pytest.approx(
        torch.randn(32, 3, 3, 3, generator=torch.Generator().manual_seed(0)).flatten()[0].item()
        * (2 / 27) ** 0.5
    )
    other = RandomConv(seed=1).build(IMAGE).state_dict()
    assert not torch.equal(one["weight_0"], other["weight_0"])


def test_its_features_are_means_of_channels():
    """Against convolutions written as sums over shifted images, in float64."""
    network, images = RandomConv().build(IMAGE), random_images(2, 8)
    x, means = (images.double() * 4 - 2).numpy(), []
    for weight in network.double().buffers():
        side = (x.shape[2] + 1) // 2
        padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (1, 2)))
        y = np.zeros((len(x), len(weight), side, side))
        for i in range(3):
            for j in range(3):
                seen = padded[:, :, i : i + 2 * side : 2, j : j + 2 * side : 2]
                y += np.einsum("ncxy,kc->nkxy", seen, weight[:, :, i, j].numpy())
        x = np.maximum(y, 0)
        means.append(x.mean((2, 3)))
    assert network(images.double()).numpy() == pytest.approx(np.concatenate(means, 1), abs=1e-12)


@pytest.mark.parametrize(("side", "channels"), [(4, 3), (96, 1), (33, 3)])
def test_it_sees_images_of_every_size(side, channels):
    network = RandomConv().build(vgx.ImageSpec(side, channels))
    assert network(random_images(3, side, channels)).shape == (3, 480)


def test_it_says_what_its_figures_are_worth():
    assert "compare only with each other" in RandomConv().note(IMAGE)


# --- timm --------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    import timm

    torch.manual_seed(5)
    model = timm.create_model("test_resnet", pretrained=False)
    file = tmp_path / "resnet.safetensors"
    save_file(model.state_dict(), file)
    return file


def test_a_backbone_with_weights_of_a_file_keeps_the_contract(weights):
    check_part(Timm(backbone="test_resnet", weights=weights, side=32), image=vgx.ImageSpec(16))


def test_a_backbone_sees_images_as_its_pretraining_did(weights):
    import timm

    network = Timm(backbone="test_resnet", weights=weights, side=40).build(IMAGE)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
    model.load_state_dict(network.backbone.state_dict())
    config, images = model.pretrained_cfg, random_images()
    resized = F.interpolate(images, (40, 40), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(config[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = model((resized - mean) / std)
    assert torch.allclose(network(images), expected, atol=1e-5)
    assert network.size == (40, 40)
    assert Timm(backbone="test_resnet", weights=weights).build(IMAGE).size == (160, 160)


def test_a_backbone_that_nobody_knows_is_refused():
    with pytest.raises(RecipeError, match="timm has no model 'resnet1'"):
        Timm(backbone="resnet1").build(IMAGE)


# --- inception ---------------------------------------------------------------------------------


def test_inception_without_a_network_says_what_does_instead(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"not cached; a local file works too: .*weights: FILE"):
        Inception().build(IMAGE)


def test_processes_that_fetch_the_same_weights_do_not_disturb_each_other(tmp_path):
    """Each has the file, and nothing is left beside it and its checksum."""
    from vgx_builtin.weight_files import WeightFile, fetched

    torch.save({"weight": torch.arange(1000.0)}, tmp_path / "w.pth")
    weights = WeightFile("w", (tmp_path / "w.pth").as_uri(), "")
    cache = vgx.cache_dir() / "weights"
    for _ in range(5):
        with ThreadPoolExecutor(4) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore", vgx.Notice)
            files = [pool.submit(fetched, weights, "test", "") for _ in range(4)]
            assert {each.result() for each in files} == {cache / "w.safetensors"}
        assert load_file(cache / "w.safetensors")["weight"].tolist() == [*range(1000)]
        assert {each.name for each in cache.iterdir()} == {"w.safetensors", "w.sha256"}
        shutil.rmtree(cache)


def test_inception_that_cannot_be_fetched_leaves_nothing(monkeypatch):
    import torch.hub

    def refuse(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(HubError, match="can't be fetched: no route"):
        Inception().build(IMAGE)
    assert list((vgx.cache_dir() / "weights").iterdir()) == []


def test_a_file_that_is_no_inception_is_refused(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, file)
    with pytest.raises(RecipeError, match="safetensors of the network of 2015 are needed"):
        Inception(weights=file).build(IMAGE)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large"])
def test_no_file_of_weights_is_waited_for_or_read_without_end(tmp_path, kind):
    file = tmp_path / "w.safetensors"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    else:
        with file.open("wb") as opened:
            opened.truncate(10**12)
    with pytest.raises(RecipeError, match="safetensors of the network of 2015 are needed"):
        Inception(weights=file).build(IMAGE)


def test_an_error_without_a_text_is_refused_too(tmp_path):
    (tmp_path / "any.safetensors").write_bytes(b"")
    with (
        mock.patch("safetensors.torch.load", side_effect=EOFError),
        pytest.raises(RecipeError, match="safetensors of the network of 2015 are needed"),
    ):
        Inception(weights=tmp_path / "any.safetensors").build(IMAGE)


@pytest.mark.slow
def test_inception_is_fetched_once_and_its_file_told(monkeypatch):
    """From a stand-in for the address: the file is converted, hashed, and read again."""
    import hashlib

    import torch.hub
    from torchvision.models import inception_v3

    requests = []

    def fetch(url, target, hash_prefix, progress):
        requests.append((url, hash_prefix))
        torch.manual_seed(0)
        model = inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
        torch.save(model.state_dict(), target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.warns(
        vgx.Notice, match="inception: .*safetensors, SHA-256 ([0-9a-f]{64})"
    ) as notices:
        network = Inception().build(IMAGE)
    (file,) = (vgx.cache_dir() / "weights").glob("*.safetensors")
    assert str(notices[0].message).endswith(hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.warns(vgx.Notice, match="inception"):
        again = Inception().build(IMAGE)
    assert requests == [(requests[0][0], "6726825d")]
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1  # a number: the file can be read
    file.write_bytes(flipped)
    for fetched in (True, False):
        with pytest.warns(vgx.Notice, match="inception") as notices:
            Inception().build(IMAGE)
        first = str(notices[0].message)
        assert first.endswith("damaged, so it is fetched again") == fetched
        assert file.read_bytes() == whole
    assert len(requests) == 2
    images = random_images(1, 16)
    with torch.no_grad():
        features = network(images)
        assert features.shape == (1, 2048)
        assert torch.equal(features, again(images))
        # The last block: its pooled branch is a maximum, those before it leave the border out.
        x = torch.rand(1, 2048, 3, 3, generator=torch.Generator().manual_seed(0))
        block = network.trunk.Mixed_7c
        pooled = F.max_pool2d(x, 3, 1, 1)
        assert torch.equal(block(x)[:, -192:], block.block.branch_pool(pooled))
        ones = torch.ones(1, 1280, 3, 3)
        seen = network.trunk.Mixed_7b(ones)[:, -192:]
        assert torch.allclose(seen, seen[:, :, 1:2, 1:2].expand_as(seen), atol=1e-7)


# Features 0, 128, 256, ... of `formula_image`, the sum of all 2,048 and the sum of their squares.
GOLDEN = (
    23.297821, 6.386563, 23.512272, 10.706984, 0.0, 6.177151, 0.0, 16.813253,
    0.805181, 11.523094, 1.143036, 0.658623, 1.765681, 1.676028, 4.572204, 30.12627,
)  # fmt: skip
GOLDEN_SUM, GOLDEN_SQUARES = 11565.881042, 200390.630526


def seeded_weights():
    """Weights of Inception with 1008 classes, from a generator that never changes."""
    from torchvision.models import inception_v3

    model = inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
    source, tensors = np.random.RandomState(0), {}
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.dim() > 1:
            values = source.standard_normal(tensor.shape) * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            values = source.uniform(0.5, 1.5, tensor.shape)
        else:
            values = source.uniform(-0.1, 0.1, tensor.shape)
        tensors[name] = torch.tensor(np.asarray(values), dtype=tensor.dtype)
    return tensors


def formula_image():
    """[1, 3, 96, 80]  Bytes of an image that is not square."""
    y, x, c = np.mgrid[0:96, 0:80, 0:3]
    pixels = ((x * 7 + y * 13 * (c + 1) + x * y) % 256).astype(np.uint8)
    return torch.from_numpy(pixels.transpose(2, 0, 1))[None]


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("inception") / "seeded.safetensors"
    save_file(seeded_weights(), file)
    return file


@pytest.mark.slow
def test_inceptions_features_are_those_of_torch_fidelity(inception_file):
    """Its extractor, version 0.4.0, gave the numbers above once:

    torch.save(seeded_weights(), "seeded.pth")
    extractor = FeatureExtractorInceptionV3(
        "golden", ["2048"], feature_extractor_weights_path="seeded.pth"
    )
    (features,) = extractor(formula_image())
    print(features[0, ::128], features.double().sum(), features.double().square().sum())
    """
    with pytest.warns(vgx.Notice, match="inception: "):
        network = Inception(weights=inception_file).build(IMAGE)
    with torch.no_grad():
        features = network(formula_image().float() / 255).double()[0]
    assert features.shape == (2048,)
    assert features[::128].tolist() == pytest.approx(GOLDEN, rel=1e-4, abs=1e-4)
    assert features.sum().item() == pytest.approx(GOLDEN_SUM, rel=1e-5)
    assert features.square().sum().item() == pytest.approx(GOLDEN_SQUARES, rel=1e-5)


@pytest.mark.filterwarnings("ignore:inception")
@pytest.mark.parametrize("name", ["fid", "kid"])
def test_the_metrics_of_inception_keep_the_contract(monkeypatch, tmp_path, name):
    """With a small network in its place, for the sake of speed."""
    from vgx_builtin.features import networks

    monkeypatch.setattr(networks, "InceptionNetwork", lambda _: networks.RandomNetwork(3, 0))
    save_file({}, tmp_path / "stand-in.safetensors")
    features = Inception(weights=tmp_path / "stand-in.safetensors")
    check_part(vgx.discover().part("metric", name)(features=features))


def test_images_are_stretched_as_tensorflow_did():
    """Pixel i of 299 lies at i * S / 299: by hand for 2 pixels, 0 and 1."""
    from vgx_builtin.features.networks import resize_matrix

    row = resize_matrix(2) @ torch.tensor([0.0, 1.0])
    expected = torch.tensor([min(i * 2 / 299, 1.0) for i in range(299)])
    assert torch.allclose(row, expected, atol=1e-6)
