"""Pictures: what is read, what is refused, and what becomes of it."""

from __future__ import annotations

import dataclasses
import io
import struct
import warnings
import zlib
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.pictures import (
    MAX_BYTES,
    MIN_SIDE,
    load_pictures,
    read_picture,
    to_tensor,
)
from loragate_server.errors import ErrorReason, NoDecisionError

Draw = Callable[..., bytes]


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def refused(data: bytes) -> str:
    with pytest.raises(NoDecisionError) as error:
        read_picture(data, "seven")
    assert error.value.reason is ErrorReason.CONCEPT_PICTURES_INVALID
    assert error.value.metadata == {"picture": "seven"}
    assert error.value.message.startswith("Picture seven ")
    return error.value.message


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file that claims this size and holds these chunks after its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats_are_read(draw: Draw, kind: str) -> None:
    picture = read_picture(draw(5, size=(40, 32), kind=kind), "x")
    assert picture.size == (40, 32)
    assert picture.mode == "RGB"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM"])
def test_other_formats_are_refused(draw: Draw, kind: str) -> None:
    assert "cannot be read" in refused(draw(5, size=(32, 32), kind=kind))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_of_png_gives_the_same_picture(mode: str) -> None:
    gray = Image.linear_gradient("L").resize((32, 32))
    read = read_picture(saved(gray.convert(mode)), "x")
    assert read.tobytes() == gray.convert("RGB").tobytes()


def test_a_picture_of_one_bit_per_pixel_is_read() -> None:
    picture = Image.new("1", (32, 32))
    picture.putpixel((7, 8), 1)
    read = read_picture(saved(picture), "x")
    assert [read.getpixel(where) for where in ((7, 8), (8, 7))] == [(255,) * 3, (0,) * 3]


def test_sixteen_bit_gray_keeps_its_brightness() -> None:
    source = Image.new("I;16", (32, 32), 0x8080)
    assert read_picture(saved(source), "x").getpixel((5, 5)) == (128, 128, 128)


def test_a_jpeg_in_cmyk_becomes_rgb() -> None:
    picture = read_picture(saved(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG"), "x")
    red, green, blue = picture.getpixel((16, 16))
    assert red > 200
    assert max(green, blue) < 60


def test_transparency_becomes_white() -> None:
    picture = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 10, 20))
    read = read_picture(saved(picture), "x")
    assert read.getpixel((2, 2)) == (255, 0, 0)
    assert read.getpixel((18, 18)) == (255, 255, 255)


def test_a_picture_is_turned_upright() -> None:
    picture = Image.new("RGB", (40, 20), "blue")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_picture(saved(picture, "JPEG", exif=exif), "x").size == (20, 40)


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert read_picture(data, "x").getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize(
    "side", [(20_000, 20_000), (10_000, 10_000), (4001, 4001), (16, 2**31 - 1)]
)
def test_a_header_that_promises_too_many_pixels_is_refused_before_they_are_decoded(
    side: tuple[int, int],
) -> None:
    # the pixel data is missing, so decoding would fail otherwise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message = refused(png(*side, (b"IDAT", zlib.compress(b""))))
    assert "pixels" in message or "DecompressionBomb" in message


def test_a_compressed_text_that_explodes_is_refused_or_skipped() -> None:
    bomb = (b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 200_000_000, 9))
    assert len(bomb[1]) < MAX_BYTES
    refused(png(32, 32, bomb, (b"IDAT", zlib.compress(b"\0" * 97 * 32))))


@pytest.mark.parametrize("size", [(MIN_SIDE - 1, 64), (64, MIN_SIDE - 1), (1, 1)])
def test_a_picture_that_is_too_small_is_refused_with_its_size(
    draw: Draw, size: tuple[int, int]
) -> None:
    assert f"is {size[0]}x{size[1]} pixels" in refused(saved(Image.new("RGB", size)))


def test_the_smallest_picture_is_read(draw: Draw) -> None:
    assert read_picture(draw(1, size=(MIN_SIDE, MIN_SIDE)), "x").size == (MIN_SIDE, MIN_SIDE)


def test_a_file_with_too_many_bytes_is_refused_though_the_picture_is_good(draw: Draw) -> None:
    data = draw(1)
    assert "bytes" in refused(data + b"\0" * (MAX_BYTES + 1 - len(data)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_truncation_is_refused(draw: Draw, kind: str) -> None:
    data = draw(3, size=(64, 64), kind=kind)
    for length in range(0, len(data) * 3 // 4, 7):
        refused(data[:length])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), max_size=4))
@example(edits=[(0.0, b"\x89PNG")])
def test_a_damaged_file_is_a_picture_or_a_named_refusal(
    draw: Draw, kind: str, edits: list[tuple[float, bytes]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = bytearray(draw(3, size=(32, 24), kind=kind, exif=exif.tobytes()))
    for where, what in edits:
        start = int(where * (len(data) - 1))
        data[start : start + len(what)] = what
    try:
        picture = read_picture(bytes(data), "seven")
    except NoDecisionError:
        refused(bytes(data))
    else:
        assert picture.mode == "RGB"


def test_black_and_white_become_minus_one_and_one() -> None:
    both = [Image.new("RGB", (20, 20), colour) for colour in ("black", "white")]
    tensor = to_tensor(both, (16, 24))
    assert tensor.shape == (2, 3, 16, 24)
    assert tensor.dtype == torch.float32
    assert tensor[0].unique().tolist() == [-1.0]
    assert tensor[1].unique().tolist() == [1.0]


def test_channels_keep_their_order_and_the_centre_is_kept() -> None:
    picture = Image.new("RGB", (60, 20), "blue")
    picture.paste((255, 0, 0), (20, 0, 40, 20))
    tensor = to_tensor([picture], (20, 20))
    assert tensor[0, 0].min() > 0.99
    assert tensor[0, 1:].max() < -0.99


def test_a_concept_gives_its_pictures_in_order_up_to_a_limit(library: ConceptLibrary) -> None:
    cat = library.get("cat")
    every = load_pictures(cat, (16, 16))
    assert every.shape == (2, 3, 16, 16)
    assert not torch.equal(every[0], every[1])
    assert torch.equal(load_pictures(cat, (16, 16), 1), every[:1])
    turned = dataclasses.replace(
        cat, picture_files=cat.picture_files[::-1], picture_sha256=cat.picture_sha256[::-1]
    )
    assert torch.equal(load_pictures(turned, (16, 16)), every.flip(0))


def test_a_picture_that_changed_since_the_library_was_opened_is_refused(
    library: ConceptLibrary, draw: Draw
) -> None:
    cat = library.get("cat")
    cat.picture_files[1].write_bytes(draw(501))
    with pytest.raises(NoDecisionError, match="has changed since the library was opened"):
        load_pictures(cat, (16, 16))
    assert len(load_pictures(cat, (16, 16), 1)) == 1
