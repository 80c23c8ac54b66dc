"""Files whose size was left open are read to their end; files shorter than stated are truncated."""

import io
import struct

import numpy as np
import pytest
import soundfile

from pipeline.dataset.codecs import audio

SAMPLES = np.random.default_rng(1).integers(-20000, 20000, 4000).astype("<i2")
FMT = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)


def chunk(name: bytes, content: bytes, size: int | None = None, order: str = "<") -> bytes:
    return name + struct.pack(order + "I", len(content) if size is None else size) + content


def wav(*chunks: bytes, riff: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return chunk(b"RIFF", body, riff)


def read(data: bytes) -> np.ndarray:
    return np.round(audio.decode_audio(data).samples[:, 0] * 32768).astype("<i2")


@pytest.mark.parametrize(
    ("riff", "size"),
    [
        (0, 0),  # GStreamer, old FFmpeg
        (36, 0),  # a recorder that was killed
        (0xFFFFFFFF, 0xFFFFFFFF),  # FFmpeg
        (0x7FFFF024, 0x7FFFF000),  # SoX, eSpeak
        (0x80000024, 0x80000000),  # arecord
        (0x80000023, 0x7FFFFFFF),  # LAME
        (0xFFFFFFFF, 0xFFFFFFDB),
        (0x7FFFFFFF, 0x7FFFFFDB),
    ],
)
def test_a_size_that_was_left_open_reaches_to_the_end_of_the_file(riff: int, size: int) -> None:
    data = wav(chunk(b"fmt ", FMT), chunk(b"LIST", b"INFOISFT\x04\0\0\0Lav5"), chunk(b"data", SAMPLES.tobytes(), size))
    data = data[:4] + struct.pack("<I", riff) + data[8:]
    assert np.array_equal(read(data), SAMPLES)
    assert np.array_equal(read(data[:-2000]), SAMPLES[:-1000])  # an open size states no length


def test_a_wrong_size_of_the_whole_file_and_bytes_after_the_samples_are_no_damage() -> None:
    plain = (chunk(b"fmt ", FMT), chunk(b"data", SAMPLES.tobytes()))
    for riff in (len(wav(*plain)), len(wav(*plain)) + 100, 0, 0xFFFFFFFF):
        assert np.array_equal(read(wav(*plain, riff=riff)), SAMPLES)
    after = {b"": 0, b"\0" * 777: 777, chunk(b"id3 ", b"ID3\3\0\0\0\0\0\0"): 0}
    for more, unread in after.items():
        assert np.array_equal(read(wav(*plain) + more), SAMPLES)
        assert audio.decode_audio(wav(*plain) + more).unread == unread
    with pytest.raises(audio.SoundError, match="not readable as audio"):
        audio.decode_audio(wav(*plain) * 2)  # two files, of which libsndfile would read one


def test_a_missing_byte_of_padding_is_no_damage() -> None:
    levels = np.arange(1, 1000, dtype=np.uint8)  # an odd number of bytes
    fmt = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    data = wav(chunk(b"fmt ", fmt), chunk(b"data", levels.tobytes()), riff=4 + 24 + 8 + 999 + 1)
    assert np.array_equal(audio.decode_audio(data).samples[:, 0] * 128 + 128, levels)


def test_a_file_without_samples_is_not_read_from_its_other_chunks() -> None:
    for after in (b"", chunk(b"LIST", b"INFOISFT\x04\0\0\0Lav5")):
        with pytest.raises(audio.SoundError, match="no samples"):
            audio.decode_audio(wav(chunk(b"fmt ", FMT), chunk(b"data", b""), after))


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "GSM610"),
        ("WAV", "IMA_ADPCM"),
        ("WAVEX", "FLOAT"),
        ("RF64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("NIST", "PCM_16"),
        ("NIST", "ULAW"),
        ("W64", "PCM_16"),
        ("CAF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "OPUS"),
        ("OGG", "VORBIS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_of_any_format_is_rejected(container: str, subtype: str, share: float) -> None:
    held = io.BytesIO()
    soundfile.write(held, np.sin(np.arange(80_000) / 9), 8000, format=container, subtype=subtype)
    data = held.getvalue()
    assert len(audio.decode_audio(data).samples) >= 80_000
    with pytest.raises(audio.SoundError, match=r"truncated|not readable as audio|no samples"):
        audio.decode_audio(data[: int(len(data) * share)])


def test_a_long_file_of_a_pipe_is_read_to_its_end() -> None:
    held = io.BytesIO()
    soundfile.write(held, SAMPLES, 8000, format="RF64", subtype="PCM_16")
    data = bytearray(held.getvalue())
    data[28:36] = b"\xff" * 8  # the 64 bits of the size of the samples
    assert np.array_equal(read(bytes(data)), SAMPLES)
    caf = io.BytesIO()
    soundfile.write(caf, SAMPLES, 8000, format="CAF", subtype="PCM_16")
    at = caf.getvalue().index(b"data") + 4
    assert np.array_equal(read(caf.getvalue()[:at] + b"\xff" * 8 + caf.getvalue()[at + 8 :]), SAMPLES)
    au = io.BytesIO()
    soundfile.write(au, SAMPLES, 8000, format="AU", subtype="PCM_16")
    assert np.array_equal(read(au.getvalue()[:8] + b"\xff" * 4 + au.getvalue()[12:]), SAMPLES)


def test_integers_stored_as_floating_point_numbers_are_rejected() -> None:
    held = io.BytesIO()
    soundfile.write(held, SAMPLES.astype(np.float32), 8000, format="WAV", subtype="FLOAT")
    with pytest.raises(audio.SoundError, match="samples far above full scale"):
        audio.decode_audio(held.getvalue())
