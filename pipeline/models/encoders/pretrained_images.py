"""Pretrained weights of image models, with the parameter names of other libraries.

ResNet: torchvision and timm. Vision Transformer: timm and transformers. Only safetensors files are supported.
"""

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError

HEADS = re.compile(r"(fc|head|classifier|pooler|pre_logits|fc_norm)\.|.*num_batches_tracked$")  # ignored
NAMES = [  # names in timm, then in transformers, and their replacements
    (r"^patch_embed\.proj\.", "patch_embed."),
    (r"^(blocks\.\d+)\.attn\.qkv\.", r"\1.self_attn.in_proj_"),
    (r"^(blocks\.\d+)\.attn\.proj\.", r"\1.self_attn.out_proj."),
    (r"^(blocks\.\d+)\.mlp\.fc(\d)\.", r"\1.linear\2."),
    (r"^(vit|resnet|model)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.self_attn.out_proj."),
    (r"^encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.linear1."),
    (r"^encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.linear2."),
    (r"^encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"^encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"^layernorm\.", "norm."),
]
APART = re.compile(r"^encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)$")


def load_weights(trunk: nn.Module, file: Path) -> None:
    """Load weights from a file into a trunk; on the meta device, only check that the file exists.

    Raises:
        ConfigError: the file cannot be read, or belongs to another network.
    """
    if not file.is_file():
        raise ConfigError(f"weights={file}: file not found. Name a safetensors file, or leave weights out")
    if any(parameter.is_meta for parameter in trunk.parameters()):
        return
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded = rename_tensors(load_file(file))
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"weights={file}: expected a safetensors file ({error})") from error
    expected = trunk.state_dict()
    if "pos_embed" in loaded and "pos_embed" in expected:
        loaded["pos_embed"] = resize_positions(loaded["pos_embed"], expected["pos_embed"].shape[1] - 1)
    for name, value in expected.items():
        if name not in loaded:
            raise ConfigError(
                f"weights={file}: {name} is missing, so the file belongs to another network or requires "
                "norm=FrozenBatchNorm"
            )
        if loaded[name].shape != value.shape:
            shapes = f"expected shape {tuple(value.shape)}, got {tuple(loaded[name].shape)}"
            raise ConfigError(f"weights={file}: {name}: {shapes}, so the file belongs to another network")
    if more := sorted(loaded.keys() - expected.keys()):
        raise ConfigError(
            f"weights={file}: unexpected {more[0]} and {len(more) - 1} more parameters. Set the network's size"
        )
    trunk.load_state_dict(loaded)


def rename_tensors(loaded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under this package's names, without those of a head."""
    result: dict[str, Tensor] = {}
    apart: dict[str, dict[str, Tensor]] = {}
    for name, value in loaded.items():
        if HEADS.match(re.sub(r"^(vit|resnet|model)\.", "", name)):
            continue
        for pattern, here in NAMES:
            name = re.sub(pattern, here, name)
        if match := APART.match(name):
            apart.setdefault(f"blocks.{match[1]}.self_attn.in_proj_{match[3]}", {})[match[2]] = value
        else:
            result[name] = value
    joined = {name: torch.cat([parts[each] for each in ("query", "key", "value")]) for name, parts in apart.items()}
    return result | joined


def resize_positions(positions: Tensor, count: int) -> Tensor:
    """Interpolate learned positions of a class token and a square of patches to a square of another size."""
    token, patches = positions[:, :1], positions[:, 1:]
    if patches.shape[1] == count:
        return positions
    side, new = (round(number**0.5) for number in (patches.shape[1], count))
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, (new, new), mode="bicubic", align_corners=False)
    return torch.cat([token, square.flatten(2).transpose(1, 2)], 1)
