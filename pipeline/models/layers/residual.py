"""Residual convolutional networks (ResNets).

He et al. (2016), "Deep Residual Learning for Image Recognition": y = relu(x + F(x)). Parameters have torchvision's
names, so that its weights can be loaded.

Legend: B images, C features, H rows, W columns.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class GroupNorm(nn.GroupNorm):
    """Group normalization, which normalizes each image independently (Wu and He 2018).

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels), channels)


class FrozenBatchNorm(nn.Module):
    """Batch normalization with fixed means and variances from an earlier training.

    Args:
        channels: C.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, inputs: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Scale and shift each feature."""
        return F.batch_norm(inputs, self.running_mean, self.running_var, self.weight, self.bias)


class ResidualBlock(nn.Module):
    """The base of residual blocks; the output has `expansion` times the features of its stage."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int, norm: type[nn.Module]) -> None:
        super().__init__()


class BasicBlock(ResidualBlock):
    """Two convolutions of 3 x 3.

    Args:
        inputs: features in.
        channels: features of the stage.
        stride: 2 halves the resolution.
        norm: creates a norm from the number of features.
    """

    def __init__(self, inputs: int, channels: int, stride: int, norm: type[nn.Module]) -> None:
        super().__init__(inputs, channels, stride, norm)
        self.conv1, self.bn1 = _conv(inputs, channels, 3, stride), norm(channels)
        self.conv2, self.bn2 = _conv(channels, channels, 3), norm(channels)
        self.downsample = _shortcut(inputs, channels, stride, norm)
        _zero_initialize(self.bn2)

    def forward(self, inputs: Float[Tensor, "B C H W"]) -> Float[Tensor, "B _ _ _"]:
        """Return the inputs plus the residual."""
        inside = F.relu(self.bn1(self.conv1(inputs)))
        return F.relu(self.downsample(inputs) + self.bn2(self.conv2(inside)))


class Bottleneck(ResidualBlock):
    """A 3 x 3 convolution between two 1 x 1 convolutions, with a quarter of the features (strided as in torchvision).

    Args:
        inputs: features in.
        channels: features inside.
        stride: 2 halves the resolution.
        norm: creates a norm from the number of features.
    """

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int, norm: type[nn.Module]) -> None:
        super().__init__(inputs, channels, stride, norm)
        self.conv1, self.bn1 = _conv(inputs, channels, 1), norm(channels)
        self.conv2, self.bn2 = _conv(channels, channels, 3, stride), norm(channels)
        self.conv3, self.bn3 = _conv(channels, 4 * channels, 1), norm(4 * channels)
        self.downsample = _shortcut(inputs, 4 * channels, stride, norm)
        _zero_initialize(self.bn3)

    def forward(self, inputs: Float[Tensor, "B C H W"]) -> Float[Tensor, "B _ _ _"]:
        """Return the inputs plus the residual."""
        inside = F.relu(self.bn1(self.conv1(inputs)))
        inside = F.relu(self.bn2(self.conv2(inside)))
        return F.relu(self.downsample(inputs) + self.bn3(self.conv3(inside)))


class ResidualTrunk(nn.Module):
    """A ResNet without its head: a first convolution, followed by stages of blocks.

    Args:
        blocks: number of blocks in each stage.
        channels: features of the first stage.
        block: class of the blocks.
        norm: class of the norms.

    Raises:
        ValueError: `blocks` is empty or has a number below 1.
    """

    def __init__(self, blocks: Sequence[int], channels: int, block: type[ResidualBlock], norm: type[nn.Module]) -> None:
        super().__init__()
        if not blocks or min(blocks) < 1:
            raise ValueError(f"blocks={list(blocks)}: expected at least one block in each stage")
        self.conv1, self.bn1 = _conv(3, channels, 7, 2), norm(channels)
        inputs, self.stages = channels, len(blocks)
        for stage, count in enumerate(blocks):
            inside = channels << stage
            layers = []
            for number in range(count):
                layers.append(block(inputs, inside, 2 if stage and not number else 1, norm))
                inputs = inside * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.features = inputs

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B _ C"]:
        """Return the positions of the last stage, row by row."""
        features = F.max_pool2d(F.relu(self.bn1(self.conv1(pixels))), 3, 2, 1)
        for stage in range(self.stages):
            features = self.get_submodule(f"layer{stage + 1}")(features)
        return features.flatten(2).transpose(1, 2)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _shortcut(inputs: int, outputs: int, stride: int, norm: type[nn.Module]) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), norm(outputs))


def _zero_initialize(norm: nn.Module) -> None:
    """Set the norm's weight to zero, so that a block starts as the identity (Goyal et al. 2017, section 5.1)."""
    for name, parameter in norm.named_parameters():
        if name == "weight":
            nn.init.zeros_(parameter)
