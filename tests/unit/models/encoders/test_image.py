"""Image encoders are independent of the batch, and load pretrained weights of other libraries.

Legend: B images, P regions, C features.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError
from pipeline.models.encoders.image import ImageEncoder, ResNet, VisionTransformer
from pipeline.models.layers.residual import Bottleneck, FrozenBatchNorm

SIZE, WIDTH = 32, 16
ENCODERS: dict[str, Callable[..., ImageEncoder]] = {
    "ResNet": lambda **rest: ResNet(WIDTH, SIZE, (1, 1, 1), 8, **rest),
    "ResNet of bottlenecks": lambda **rest: ResNet(WIDTH, SIZE, (1, 2), 8, Bottleneck, **rest),
    "VisionTransformer": lambda **rest: VisionTransformer(WIDTH, SIZE, 8, 24, 2, 4, **rest),
}
every_encoder = pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS.keys())
Make = Callable[..., ImageEncoder]


def build(make: Make, **options: object) -> ImageEncoder:
    torch.manual_seed(1)
    return make(**options).eval()


def images(count: int = 3, size: int = SIZE) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(2)).to(torch.uint8)


@pytest.mark.numeric
@every_encoder
@torch.no_grad()
def test_regions_are_a_square_and_their_mean_is_the_summary(make: Make) -> None:
    memory = build(make)(images())
    side = round(memory.values.shape[1] ** 0.5)
    assert memory.values.shape == (3, side * side, WIDTH)
    assert memory.keep.all()
    torch.testing.assert_close(memory.summary, memory.values.mean(1))


@pytest.mark.numeric
@every_encoder
@torch.no_grad()
def test_images_are_independent_in_training_too(make: Make) -> None:
    encoder = build(make).double().train()
    together = encoder(images())
    for row in range(3):
        torch.testing.assert_close(encoder(images()[row : row + 1]).values[0], together.values[row])


@pytest.mark.parametrize(
    "make",
    [
        ENCODERS["VisionTransformer"],
        lambda: ResNet(WIDTH, SIZE, (1, 1, 1), 8, norm=FrozenBatchNorm),  # a norm without statistics over the image
    ],
    ids=["VisionTransformer", "ResNet"],
)
def test_regions_lie_row_by_row(make: Make) -> None:
    encoder = build(make)
    dark = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    spot = dark.clone()
    spot[:, :, :4, -4:] = 255  # in the upper right corner
    change = (encoder(spot).values - encoder(dark).values).norm(dim=-1)[0]
    side = round(len(change) ** 0.5)
    assert change.view(side, side).argmax() == side - 1


@every_encoder
def test_a_frozen_trunk_has_no_gradient_and_no_dropout(make: Make) -> None:
    encoder = build(make, frozen=True).train()
    encoder(images()).values.sum().backward()
    assert all(parameter.grad is None for parameter in encoder.trunk.parameters())
    assert encoder.join.weight.grad is not None
    assert not any(module.training for module in encoder.trunk.modules())
    free = build(make).train()
    free(images()).values.square().sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in free.trunk.parameters())


def count(trunk: nn.Module) -> int:
    """Return the number of a trunk's parameters, with the scales and shifts of norms, without their statistics."""
    named = trunk.state_dict().items()
    return sum(value.numel() for name, value in named if not name.endswith(("running_mean", "running_var")))


@pytest.mark.parametrize(
    ("make", "numbers", "tensors"),
    [  # the published models without their heads
        (lambda: ResNet(8, 224, (2, 2, 2, 2), norm=FrozenBatchNorm), 11_689_512 - 513_000, 122 - 20 - 2),
        (lambda: ResNet(8, 224, (3, 4, 6, 3), 64, Bottleneck, FrozenBatchNorm), 25_557_032 - 2_049_000, 320 - 53 - 2),
        (lambda: VisionTransformer(8, 224, 16, 768, 12, 12), 86_567_656 - 769_000, 152 - 2),
    ],
    ids=["ResNet-18", "ResNet-50", "ViT-B/16"],
)
def test_sizes_are_those_of_the_published_models(make: Callable[[], ImageEncoder], numbers: int, tensors: int) -> None:
    with torch.device("meta"):
        trunk = make().trunk
    assert count(trunk) == numbers
    assert len(trunk.state_dict()) == tensors


@pytest.mark.numeric
def test_a_frozen_norm_is_batch_normalisation_in_evaluation() -> None:
    torch.manual_seed(3)
    norm, reference = FrozenBatchNorm(5), nn.BatchNorm2d(5)
    reference.running_mean, reference.running_var = torch.randn(5), torch.rand(5) + 0.5
    nn.init.normal_(reference.weight)
    norm.load_state_dict({k: v for k, v in reference.state_dict().items() if k != "num_batches_tracked"})
    inputs = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(norm(inputs), reference.eval()(inputs))


@pytest.mark.numeric
def test_a_resnet_loads_weights_without_the_head(tmp_path: Path) -> None:
    make = lambda **rest: ResNet(WIDTH, SIZE, (1, 1), 8, norm=FrozenBatchNorm, **rest)  # noqa: E731
    given = build(make)
    names = {**given.trunk.state_dict(), "fc.weight": torch.zeros(3, 8), "bn1.num_batches_tracked": torch.tensor(1)}
    assert {"conv1.weight", "layer2.0.downsample.1.running_var", "layer1.0.bn2.bias"} <= set(names)
    save_file(names, tmp_path / "resnet.safetensors")
    torch.manual_seed(9)
    taken = make(weights=tmp_path / "resnet.safetensors")
    assert all(torch.equal(value, names[name]) for name, value in taken.trunk.state_dict().items())


def timm_weights() -> dict[str, Tensor]:
    """Random weights of a small Vision Transformer under timm's names."""
    draw = torch.Generator().manual_seed(4)
    shapes = {"cls_token": (1, 1, 24), "pos_embed": (1, 17, 24), "patch_embed.proj.weight": (24, 3, 8, 8)}
    shapes |= {"patch_embed.proj.bias": (24,), "norm.weight": (24,), "norm.bias": (24,), "head.bias": (10,)}
    for block in ("blocks.0.", "blocks.1."):
        for name, outputs, inputs in (
            ("attn.qkv", 72, 24),
            ("attn.proj", 24, 24),
            ("mlp.fc1", 96, 24),
            ("mlp.fc2", 24, 96),
        ):
            shapes |= {f"{block}{name}.weight": (outputs, inputs), f"{block}{name}.bias": (outputs,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"{block}{name}.weight": (24,), f"{block}{name}.bias": (24,)}
    return {name: torch.randn(shape, generator=draw) * 0.3 for name, shape in shapes.items()}


def vision_transformer(weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """Compute the published forward pass and return the patches after the last norm."""
    patches = F.conv2d(pixels, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], 8)
    seen = (
        torch.cat([weights["cls_token"].expand(len(pixels), -1, -1), patches.flatten(2).mT], 1) + weights["pos_embed"]
    )
    for block in ("blocks.0.", "blocks.1."):
        part = {name.removeprefix(block): value for name, value in weights.items() if name.startswith(block)}
        inside = F.layer_norm(seen, (24,), part["norm1.weight"], part["norm1.bias"], 1e-6)
        projected = F.linear(inside, part["attn.qkv.weight"], part["attn.qkv.bias"])
        query, key, value = projected.view(len(pixels), -1, 3, 4, 6).permute(2, 0, 3, 1, 4)
        attended = (query @ key.mT / 6**0.5).softmax(-1) @ value
        attended = attended.transpose(1, 2).flatten(2)
        seen = seen + F.linear(attended, part["attn.proj.weight"], part["attn.proj.bias"])
        inside = F.layer_norm(seen, (24,), part["norm2.weight"], part["norm2.bias"], 1e-6)
        inside = F.gelu(F.linear(inside, part["mlp.fc1.weight"], part["mlp.fc1.bias"]))
        seen = seen + F.linear(inside, part["mlp.fc2.weight"], part["mlp.fc2.bias"])
    return F.layer_norm(seen, (24,), weights["norm.weight"], weights["norm.bias"], 1e-6)[:, 1:]


TRANSFORMERS = {
    "blocks.": "vit.encoder.layer.",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "head.": "classifier.",
}


def as_transformers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of transformers' ViTForImageClassification."""
    found = {}
    for name, value in weights.items():
        if "attn.qkv" in name:
            layer, kind = name.split(".")[1], name.rsplit(".", 1)[1]
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"vit.encoder.layer.{layer}.attention.attention.{part}.{kind}"] = third.clone()
            continue
        for old, new in TRANSFORMERS.items():
            name = name.replace(old, new)
        found["vit.layernorm" + name[4:] if name.startswith("norm.") else name] = value
    return found


@pytest.mark.numeric
@pytest.mark.parametrize("rename", [dict, as_transformers], ids=["timm", "transformers"])
@torch.no_grad()
def test_a_vision_transformer_equals_the_published_model(
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]], tmp_path: Path
) -> None:
    weights = timm_weights()
    save_file(rename(weights), tmp_path / "vit.safetensors")
    encoder = build(ENCODERS["VisionTransformer"], weights=tmp_path / "vit.safetensors")
    pixels = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(encoder.trunk(pixels), vision_transformer(weights, pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.numeric
def test_positions_are_interpolated_to_larger_images(tmp_path: Path) -> None:
    weights = timm_weights()
    weights["pos_embed"][:, 1:] = torch.arange(4.0).repeat_interleave(4)[None, :, None]  # by row
    save_file(weights, tmp_path / "vit.safetensors")
    positions = VisionTransformer(8, 64, 8, 24, 2, 4, weights=tmp_path / "vit.safetensors").trunk.pos_embed
    square = positions[0, 1:].view(8, 8, 24)  # type: ignore[operator]
    torch.testing.assert_close(square[:, 0], square[:, 7])
    assert (square[1:, 0, 0] >= square[:-1, 0, 0] - 0.1).all()
    torch.testing.assert_close(positions[:, :1], weights["pos_embed"][:, :1])  # type: ignore[index]


def test_weights_that_do_not_fit_raise_an_error(tmp_path: Path) -> None:
    weights = timm_weights()
    file = tmp_path / "vit.safetensors"
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({name: value for name, value in weights.items() if name != "norm.bias"}, "norm.bias is missing"),
        (weights | {"norm.bias": torch.zeros(7)}, r"norm.bias: expected shape \(24,\), got \(7,\)"),
        (weights | {"blocks.2.norm1.bias": torch.zeros(24)}, "unexpected blocks.2.norm1.bias and 0 more"),
    ]
    for given, message in cases:
        save_file(given, file)
        with pytest.raises(ConfigError, match=message):
            ENCODERS["VisionTransformer"](weights=file)
    file.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="expected a safetensors file"):
        ENCODERS["VisionTransformer"](weights=file)
    with torch.device("meta"), pytest.raises(ConfigError, match="file not found"):
        ENCODERS["VisionTransformer"](weights=tmp_path / "none")
    with pytest.raises(ValueError, match="patch=7 must divide size=32"):
        VisionTransformer(8, 32, 7)
