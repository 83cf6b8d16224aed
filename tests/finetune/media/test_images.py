"""Pictures of all kinds come out as they look, and damaged ones not at all."""

from __future__ import annotations

import base64
import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image, ImageFile

from finetune.media.images import MAX_PIXELS, as_rgb, frames_of, open_picture, video_seconds
from soup.errors import FinetuneError


def gradient(width=40, height=30):
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 6, y * 8, x + y], axis=-1).astype(np.uint8))


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(picture):
    assert picture.mode == "RGB"
    return np.asarray(picture)


def same(picture, image):
    return np.array_equal(pixels(picture), np.asarray(image))


def png_of(width, height, *, rows=b"", depth=8, colour=2, extra=()):
    """A PNG by its chunks, whatever they say."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(chunk(*pair) for pair in extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def refusal(source, **settings):
    with pytest.raises(FinetuneError) as error:
        open_picture(source, **settings)
    return str(error.value)


# Where a picture comes from


def test_a_picture_comes_from_a_path_bytes_base64_or_a_mapping(tmp_path):
    image, path = gradient(), tmp_path / "a.png"
    image.save(path)
    content = path.read_bytes()
    text = base64.b64encode(content).decode()
    lines = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    sources = [path, str(path), content, bytearray(content), text, lines, f"data:image/png;base64,{text}"]
    sources += [{"bytes": content, "path": None}, {"bytes": None, "path": str(path)}, {"bytes": content, "path": "no"}]
    for source in (*sources, {"bytes": text}, image):
        assert same(open_picture(source), image)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_base64_of_every_usual_form_is_known_as_such(form):
    content = encoded(gradient(), form)
    assert same(open_picture(base64.b64encode(content).decode()), pixels(open_picture(content)))


def spelt(content):
    """Base64 as tables, browsers and Python's print leave it behind."""
    text = base64.b64encode(content).decode()
    safe = base64.urlsafe_b64encode(content).decode()
    return {
        "without padding": text.rstrip("="),
        "URL-safe": safe,
        "URL-safe without padding": safe.rstrip("="),
        "percent-encoded": quote(text, safe=""),
        "DATA:": f"DATA:image/png;BASE64,{text}",
        "data, percent-encoded": f"data:image/png;base64,{quote(text, safe='')}",
        "printed": str(text.encode()),
        "printed bytes": str(content),
    }


@pytest.mark.parametrize("how", spelt(b""))
def test_base64_is_read_however_it_is_spelt(how):
    for size in ((31, 32), (32, 32), (33, 32)):
        content = encoded(gradient(*size), "PNG")
        assert same(open_picture(spelt(content)[how]), pixels(open_picture(content)))


@pytest.mark.parametrize("how", spelt(b""))
def test_base64_that_is_cut_off_is_told_and_never_printed(how):
    text = spelt(encoded(gradient(), "PNG"))[how]
    for cut in (text[: len(text) // 2], text[:80]):
        said = refusal(cut)
        assert "no such file" not in said
        assert text[40:60] not in said


def test_a_file_whose_name_could_be_base64_is_a_file(tmp_path, monkeypatch):
    gradient().save(tmp_path / "Qk", "PNG")
    monkeypatch.chdir(tmp_path)
    assert same(open_picture("Qk"), gradient())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/a.png", "https://example.org/a.png: a URL"),
        ("s3://bucket/a.png", "Download it first"),
        ("data:image/png;base64,iVBOR", "data URI of 27 characters: not base64"),
        ("data:image/svg+xml,<svg/>", "found no base64"),
        ("iVBORw0KGgoAA", "base64 text of 13 characters: not base64"),
        ("no/such.png", "no/such.png: no such file"),
        ("a\0b", "no such file"),
        ("x" * 300 + ".png", "(304 characters): no such file"),
        (b"", "0 bytes in memory: empty"),
        (b"words, no pixels", "16 bytes in memory: not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "convert it to PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n", "EPS has no pixels"),
        ({"path": None, "bytes": None}, "neither of them filled"),
        ({"url": "x"}, "found url, neither"),
        ({}, "an empty one"),
        (None, "found NoneType"),
        (7, "found int"),
    ],
    ids=lambda source: str(source)[:30].replace("\0", " "),
)
def test_what_is_no_picture_is_told(source, message):
    assert message in refusal(source)


def test_a_directory_and_an_empty_file_are_told(tmp_path):
    (tmp_path / "empty.png").touch()
    assert "a directory; expected the file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert "a pipe or a device; expected the file" in refusal(tmp_path / "pipe.png")
    assert "empty.png: an empty file" in refusal(tmp_path / "empty.png")


def test_errors_name_the_picture_as_the_caller_does_and_never_print_its_content():
    content = encoded(gradient(), "PNG")[:-30]
    text = base64.b64encode(content).decode()
    for source in (content, text, f"data:image/png;base64,{text}", {"bytes": content, "path": "shelf/a.png"}):
        assert refusal(source, name="row 7, image 2").startswith("row 7, image 2: ")
        assert text[20:40] not in refusal(source)
        assert len(refusal(source)) < 200
    assert refusal({"bytes": content, "path": "shelf/a.png"}).startswith("shelf/a.png (its bytes): ")


# How a picture looks


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_seen_upright(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}}.get(form, {})
    content = encoded(gradient(), form, exif=exif, **lossless)
    stored = pixels(open_picture(encoded(gradient(), form, **lossless)))
    # row and column 0 of what is stored are, by the EXIF standard, these sides of what is seen
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored.transpose(1, 0, 2)[:, ::-1],
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored.transpose(1, 0, 2)[::-1],
    }
    picture = open_picture(content)
    assert np.array_equal(pixels(picture), turned[orientation])
    assert same(open_picture(picture), picture), "it must not be turned twice"


def test_a_damaged_exif_block_is_passed_over():
    content = encoded(gradient(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert same(open_picture(content), pixels(open_picture(encoded(gradient(), "JPEG"))))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_greys_of_16_bits_are_scaled_and_rounded(form):
    grey = np.array([[0, 128, 129, 257, 25_700, 32_767, 65_406, 65_407, 65_535]], dtype=np.uint16)
    colours = pixels(open_picture(encoded(Image.fromarray(grey), form)))[0]
    assert (colours == np.round(grey[0] / 257)[:, None]).all()
    assert colours[:, 0].tolist() == [0, 0, 1, 1, 100, 127, 254, 255, 255]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_without_a_known_range_are_told(kind):
    content = encoded(Image.fromarray(np.array([[0, 300]], dtype=kind)), "TIFF")
    assert "numbers of 32 bits" in refusal(content)


def test_transparent_parts_lie_on_white():
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.putpixel((2, 0), (255, 0, 0, 51))
    assert pixels(open_picture(encoded(image, "PNG")))[0].tolist() == [[255, 0, 0], [255, 255, 255], [255, 204, 204]]
    assert pixels(open_picture(encoded(image.convert("LA"), "PNG")))[0, 1].tolist() == [255, 255, 255]


def test_transparent_colours_of_a_palette_or_a_key_lie_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 200, 0, 0])
    image.putpixel((1, 0), 1)
    for form in ("PNG", "GIF"):
        colours = pixels(open_picture(encoded(image, form, transparency=0)))
        assert colours[0].tolist() == [[255, 255, 255], [200, 0, 0]]
    key = (b"tRNS", struct.pack(">HHH", 1, 2, 3))
    assert pixels(open_picture(png_of(2, 1, rows=b"\0\1\2\3\4\5\6", extra=[key])))[0].tolist() == [[255] * 3, [4, 5, 6]]
    grey_key = (b"tRNS", struct.pack(">H", 514))
    deep = png_of(2, 1, rows=b"\0" + struct.pack(">HH", 514, 2570), depth=16, colour=0, extra=[grey_key])
    assert pixels(open_picture(deep))[0].tolist() == [[255] * 3, [10] * 3]


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_of_print_is_seen_in_its_colours(form):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    colours = pixels(open_picture(encoded(image, form)))
    assert np.abs(colours.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV", "LAB"])
def test_every_mode_of_pillow_comes_out_in_rgb(mode):
    image = Image.new("RGB", (4, 4), (200, 200, 200)).convert("L" if mode == "LAB" else mode)
    image = Image.new("LAB", (4, 4), (200, 128, 128)) if mode == "LAB" else image
    assert pixels(as_rgb(image)).shape == (4, 4, 3)


def test_of_an_animation_the_first_frame_is_the_picture():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert same(open_picture(content), frames[0])


# How large, and how whole


def test_a_picture_of_1e9_pixels_is_refused_by_its_header():
    bomb = png_of(40_000, 25_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(bomb)
    assert "40000 x 25000 is 1,000,000,000 pixels" in message
    assert f"{MAX_PIXELS:,}" in message
    assert "raise max_pixels" in message
    assert "cut off" in refusal(bomb, max_pixels=10**9), "allowed, it is decoded, and has no pixels"
    assert Image.MAX_IMAGE_PIXELS is not None, "Pillow's own limit is left as it was"


def test_the_limit_is_the_callers():
    content = encoded(gradient(40, 30), "PNG")
    assert open_picture(content, max_pixels=1200).size == (40, 30)
    assert "1,200 pixels, more than the 1,199 allowed" in refusal(content, max_pixels=1199)
    assert "more than the 5 allowed" in refusal(gradient(), max_pixels=5)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_picture_without_pixels_is_told(size):
    assert "without pixels" in refusal(png_of(*size))
    assert "has no pixels" in refusal(Image.new("RGB", size))


FORMS = {
    "png": lambda: encoded(gradient(), "PNG"),
    "jpeg": lambda: encoded(gradient(), "JPEG"),
    "progressive jpeg": lambda: encoded(gradient(), "JPEG", progressive=True),
    "jpeg 2000": lambda: encoded(gradient(), "JPEG2000"),
    "gif": lambda: encoded(gradient(), "GIF"),
    "webp": lambda: encoded(gradient(), "WEBP"),
    "bmp": lambda: encoded(gradient(), "BMP"),
    "tiff": lambda: encoded(gradient(), "TIFF"),
    "deflated tiff": lambda: encoded(gradient(), "TIFF", compression="tiff_deflate"),
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("lenient", [False, True], ids=["", "after LOAD_TRUNCATED_IMAGES"])
@pytest.mark.filterwarnings("ignore")  # Pillow also warns of some of what becomes an error here
def test_wherever_a_picture_is_cut_off_it_is_whole_or_an_error(make, lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    content, refused = make(), 0
    whole = pixels(open_picture(content))
    lengths = {*range(0, len(content), max(1, len(content) // 100)), *range(len(content) - 40, len(content))}
    for length in lengths:
        try:
            assert same(open_picture(content[:length]), whole)
        except FinetuneError:
            refused += 1
    assert refused > len(lengths) / 2
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_damaged_pixels_are_told():
    content = bytearray(encoded(gradient(), "PNG"))
    content[60] ^= 0xFF
    assert "damaged or cut off" in refusal(bytes(content))


def test_pictures_may_be_opened_by_many_threads_and_by_processes_forked_meanwhile():
    contents = [encoded(gradient(40 + i, 30), "PNG") for i in range(8)]
    with ThreadPoolExecutor(8) as threads:
        sizes = [picture.size for picture in threads.map(open_picture, contents * 30)]
    assert sizes == [(40 + i, 30) for i in range(8)] * 30
    assert Image.MAX_IMAGE_PIXELS is not None
    code = (
        "import os, sys, warnings, finetune.media.images as p\n"
        "p._settings.acquire()\n"  # as if another thread were opening a picture
        "child = os.fork()\n"
        "if child == 0: p.open_picture(sys.stdin.buffer.read()); os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    subprocess.run([sys.executable, "-c", code], input=contents[0], check=True, timeout=60)


# Videos


COLOURS = [(8 * i, 255 - 8 * i, 0) for i in range(30)]
CHOSEN = [3, 9, 15, 21, 27]  # the middles of five stretches of six


def video_frames(size=(32, 16)):
    return [Image.new("RGB", size, colour) for colour in COLOURS]


def animated(form):
    frames = video_frames()
    options = {"lossless": True} if form == "WEBP" else {}
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50, **options)


def near(picture, colour):
    return np.abs(pixels(picture).astype(int) - colour).max() <= 12


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_frames_of_an_animation_are_uniformly_sampled(form):
    content = animated(form)
    frames = frames_of(content, 5)
    assert all(near(frame, COLOURS[i]) for frame, i in zip(frames, CHOSEN, strict=True))
    assert len(frames_of(content, 100)) == 30
    assert [near(frame, COLOURS[15]) for frame in frames_of(content, 1)] == [True]


def test_an_animation_that_is_cut_off_is_told():
    content = animated("GIF")
    with pytest.raises(FinetuneError, match=r"frame \d+ is damaged or cut off"):
        frames_of(content[:-20], 100)


def test_a_still_picture_is_a_video_of_one_frame():
    assert [same(frame, gradient()) for frame in frames_of(encoded(gradient(), "PNG"), 24)] == [True]


def test_frames_in_a_directory_go_by_their_numbers(tmp_path):
    for i, frame in enumerate(video_frames()):
        frame.save(tmp_path / f"frame{i}.png")  # frame10 would come before frame9 by letters
    (tmp_path / "about.json").write_text("{}")
    (tmp_path / ".frame5.png").write_text("left by an editor")
    assert all(same(frame, video_frames()[i]) for frame, i in zip(frames_of(tmp_path, 5), CHOSEN, strict=True))
    assert len(frames_of(tmp_path, 30)) == 30


def test_frames_may_be_a_list_of_sources(tmp_path):
    gradient().save(tmp_path / "a.png")
    frames = frames_of([tmp_path / "a.png", encoded(video_frames()[4], "PNG")], 24)
    assert same(frames[0], gradient())
    assert same(frames[1], video_frames()[4])
    with pytest.raises(FinetuneError, match="clip 3, frame 2: not a picture"):
        frames_of([tmp_path / "a.png", b"no"], 24, name="clip 3")


def test_a_video_without_frames_is_told(tmp_path):
    for nothing in ([], tmp_path):
        with pytest.raises(FinetuneError, match="without frames"):
            frames_of(nothing, 24)


def test_without_pyav_a_video_is_an_error_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(FinetuneError, match=r'pip install "vlm-soup\[video\]"'):
        frames_of(b"\0\0\0\x20ftypisom", 24)


def video(path, codec="libx264", **options):
    """A video of 30 frames, 10 a second."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in video_frames((64, 48)):
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return path


VIDEOS = [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"), ("a.mkv", "libx264")]


@pytest.mark.parametrize(("name", "codec"), VIDEOS)
def test_frames_of_a_video_are_uniformly_sampled(name, codec, tmp_path):
    path = video(tmp_path / name, codec)
    for source in (path, path.read_bytes()):
        frames = frames_of(source, 5)
        assert all(near(frame, COLOURS[i]) for frame, i in zip(frames, CHOSEN, strict=True))
        assert [frame.size for frame in frames_of(source, 100)] == [(64, 48)] * 30


@pytest.mark.parametrize(("name", "codec"), VIDEOS)
def test_a_video_lasts_as_long_as_its_frames_by_their_rate(name, codec, tmp_path):
    path = video(tmp_path / name, codec)
    for source in (path, path.read_bytes()):
        assert video_seconds(source) == pytest.approx(3.0, abs=0.01)


def test_a_video_of_pictures_lasts_as_long_as_each_is_shown(tmp_path):
    first, *others = video_frames((64, 48))
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=40)
    assert video_seconds(tmp_path / "a.gif") == pytest.approx(30 * 0.04)
    first.save(tmp_path / "a.png")
    assert video_seconds(tmp_path / "a.png") == 0


@pytest.mark.parametrize(("name", "codec"), VIDEOS)
def test_a_video_that_is_cut_off_is_told(name, codec, tmp_path):
    content = video(tmp_path / name, codec, **({"movflags": "faststart"} if name == "a.mp4" else {})).read_bytes()
    for part in (0.3, 0.6):
        with pytest.raises(FinetuneError, match=r"cut off|neither a picture nor a video"):
            frames_of(content[: int(len(content) * part)], 5)


def test_a_video_that_lacks_its_last_frames_is_told(tmp_path):
    content = video(tmp_path / "a.avi", "mpeg4").read_bytes()
    with pytest.raises(FinetuneError, match=r"cut off: 2\d of 30 frames"):
        frames_of(content[: int(len(content) * 0.9)], 5)


def test_a_video_turned_sideways_by_its_phone_is_seen_upright(tmp_path):
    content = bytearray(video(tmp_path / "a.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    assert [frame.size for frame in frames_of(bytes(content), 2)] == [(48, 64)] * 2


def test_the_size_of_a_video_is_limited_as_that_of_a_picture(tmp_path):
    with pytest.raises(FinetuneError, match="64 x 48 is 3,072 pixels"):
        frames_of(video(tmp_path / "a.mp4"), 5, max_pixels=3000)


def test_a_text_is_no_video(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "notes.txt").write_text("words\n" * 100)
    with pytest.raises(FinetuneError, match=r"notes.txt: (neither a picture nor a video|a file without pictures)"):
        frames_of(tmp_path / "notes.txt", 5)
