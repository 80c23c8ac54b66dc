"""Encoders of images: the regions of an image are the positions of the memory, and their mean is its summary.

He et al. (2016), "Deep Residual Learning for Image Recognition"; Dosovitskiy et al. (2021), "An Image is Worth 16x16
Words". Both can be initialized with pretrained weights.

Legend: B images, S side length in pixels, C features of a region, P regions, D features of the memory.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.models.encoders.pretrained_images import load_weights
from pipeline.models.layers.cross_attention import Memory
from pipeline.models.layers.residual import BasicBlock, GroupNorm, ResidualBlock, ResidualTrunk
from pipeline.tasks.task import Reads

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, as pretrained models expect


class ImageEncoder(nn.Module):
    """A trunk that maps pixels to regions, and a linear layer that maps regions to a memory.

    Args:
        trunk: maps scaled pixels (B, 3, S, S) to regions (B, P, C).
        features: C.
        width: D.
        size: S.
        weights: a safetensors file with initial weights of the trunk.
        frozen: keep the trunk's weights fixed.

    Raises:
        ConfigError: the weights cannot be read, or belong to another network.
    """

    reads: Reads = "image"

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, trunk: nn.Module, features: int, width: int, size: int, weights: Path | None, frozen: bool
    ) -> None:
        super().__init__()
        self.width, self.size, self.frozen = width, size, frozen
        self.trunk = trunk.requires_grad_(not frozen)
        self.join = nn.Linear(features, width)
        nn.init.xavier_uniform_(self.join.weight)
        nn.init.zeros_(self.join.bias)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        if weights is not None:
            load_weights(trunk, weights)

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Set training or evaluation mode; a frozen trunk stays in evaluation mode, without dropout."""
        super().train(mode)
        self.trunk.train(mode and not self.frozen)
        return self

    def forward(self, pixels: UInt8[Tensor, "B 3 S S"]) -> Memory:
        """Encode images with pixel values from 0 to 255."""
        mean = self.mean
        scaled = (pixels.to(mean.dtype) / 255 - mean) / self.deviation
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            regions = self.trunk(scaled.to(self.join.weight.dtype))
        values = self.join(regions)
        keep = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Memory(values, keep, values.mean(1))


class ResNet(ImageEncoder):
    """A residual convolutional network; its regions are the positions of the last layer.

    Args:
        width: features of the memory.
        size: side length of the images in pixels.
        blocks: number of blocks per stage; the first stage has a quarter of the resolution, and each later one half
            of the one before.
        channels: features of the first stage; each later stage doubles them.
        block: class of the blocks: BasicBlock (ResNet-18, 34) or Bottleneck (50, 101, 152).
        norm: class of the normalization. GroupNorm (Wu and He 2018) normalizes each image independently, so that
            results do not depend on the division of a batch; FrozenBatchNorm is for pretrained weights.
        weights: a safetensors file with the parameter names of torchvision or timm.
        frozen: keep the trunk's weights fixed.
    """

    def __init__(
        self,
        width: int,
        size: int,
        blocks: Sequence[int] = (2, 2, 2, 2),
        channels: int = 64,
        block: type[ResidualBlock] = BasicBlock,
        norm: type[nn.Module] = GroupNorm,
        weights: Path | None = None,
        frozen: bool = False,
    ) -> None:
        trunk = ResidualTrunk(blocks, channels, block, norm)
        super().__init__(trunk, trunk.features, width, size, weights, frozen)


class VisionTransformer(ImageEncoder):
    """A Transformer over square patches of the image with learned positions.

    Args:
        width: features of the memory.
        size: pixels of a side of the images.
        patch: side length of a patch in pixels; must divide the size.
        features: features of a patch.
        depth: number of blocks.
        heads: number of attention heads; must divide the features.
        hidden: features inside the position-wise layers (default: four times the features).
        dropout: fraction of the features dropped in training.
        weights: a safetensors file with the parameter names of a ViT in timm or transformers.
        frozen: keep the trunk's weights fixed.

    Raises:
        ValueError: the patch does not divide the size, or the heads do not divide the features.
    """

    def __init__(
        self,
        width: int,
        size: int,
        patch: int = 16,
        features: int = 256,
        depth: int = 6,
        heads: int = 4,
        hidden: int | None = None,
        dropout: float = 0.0,
        weights: Path | None = None,
        frozen: bool = False,
    ) -> None:
        if size % patch:
            raise ValueError(f"patch={patch} must divide size={size}")
        if features % heads:
            raise ValueError(f"heads={heads} must divide features={features}")
        layer = _block(features, heads, hidden or 4 * features, dropout)
        trunk = PatchTrunk(size // patch, patch, features, depth, layer)
        super().__init__(trunk, features, width, size, weights, frozen)


def _block(features: int, heads: int, hidden: int, dropout: float) -> Callable[[], nn.Module]:
    return lambda: nn.TransformerEncoderLayer(
        features, heads, hidden, dropout, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )


class PatchTrunk(nn.Module):
    """A Vision Transformer without its head: patches, a class token, blocks and a norm.

    Args:
        side: number of patches along a side.
        patch: side length of a patch in pixels.
        features: C.
        depth: number of blocks.
        block: creates a block.
    """

    def __init__(self, side: int, patch: int, features: int, depth: int, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, features, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, features))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, features))
        nn.init.normal_(self.pos_embed, std=0.02)
        self.blocks = nn.Sequential(*(block() for _ in range(depth)))
        self.norm = nn.LayerNorm(features, eps=1e-6)

    def forward(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B P C"]:
        """Return the normalized outputs of the last block at the patches."""
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1) + self.pos_embed
        outputs: Tensor = self.norm(self.blocks(tokens))
        return outputs[:, 1:]
