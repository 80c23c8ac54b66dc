"""Read the input of a trained encoder from texts and files.

Legend: B sources, S positions of a source, H and W height and width in pixels.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from tokenizers import Tokenizer
from torch import Tensor

from pipeline.data.pairs import padded
from pipeline.dataset.codecs.audio import SoundError, at_rate, decode_audio
from pipeline.dataset.codecs.image import ImageError, View, pixels, read_image, square
from pipeline.errors import DataError
from pipeline.generation.vocabulary import tokens_of


def text_source(
    tokenizer: Tokenizer, eos: int, texts: Sequence[str]
) -> tuple[Int64[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Return the padded tokens of texts in NFC, as prepared pairs are, each with EOS, and the mask of the positions."""
    composed = (normalize("NFC", text) for text in texts)
    return padded([np.array([*tokens_of(tokenizer, text), eos]) for text in composed], eos)


def image_source(file: Path, size: int) -> UInt8[Tensor, "1 3 H W"]:
    """Read the largest central square of an image, scaled to `size` pixels.

    Raises:
        DataError: the file is missing, damaged or not an image.
    """
    try:
        image = read_image(file, size)
    except ImageError as error:
        raise DataError(f"{file}: {error}. Give another image") from error
    return torch.from_numpy(pixels(square(image, View.central(*image.size), size)))[None]


def audio_source(file: Path | None, rate: int) -> tuple[Tensor, ...]:
    """Read an audio file, or standard input if it is None, as a batch of one clip at `rate` samples per second.

    Raises:
        DataError: the file is missing, damaged or not an audio file.
    """
    name = "standard input" if file is None else file
    try:
        clip = decode_audio(sys.stdin.buffer.read() if file is None else file.read_bytes())
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}. Give an audio file") from error
    except SoundError as error:
        raise DataError(f"{name}: {error}. Give a WAV, FLAC, OGG or MP3 file") from error
    wave = torch.from_numpy(at_rate(clip, rate))[None]
    nothing = wave.new_zeros(1, 0, 2)  # no noise and no masks, which only training adds
    return wave, torch.ones_like(wave, dtype=torch.bool), nothing, nothing
