"""Pictures of all kinds into 8-bit RGB, or an error that names the picture; nothing is guessed, and nothing half read.

- Upright, as EXIF says. Transparent parts lie on white, as on paper. 16-bit greys are scaled to 8 (v / 257, rounded),
  not clipped. CMYK and the rest by Pillow's own conversion. Of several pages or frames the first.
- A picture that is cut off is an error: never a half grey one, whatever `ImageFile.LOAD_TRUNCATED_IMAGES` says.
- One of more than `max_pixels` is refused by its header, before a pixel is decoded.

JPEGs are decoded in full: Pillow's `draft` and `reducing_gap` would be quicker on large ones, with other pixels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from finetune.media.sampling import frame_indices
from finetune.media.size_limit import MAX_PIXELS, check_size
from finetune.media.sources import ImageSource, image_source
from soup.errors import FinetuneError
from soup.support.extras import install_line

__all__ = ["MAX_PIXELS", "as_rgb", "frames_of", "open_picture", "upright", "video_digest", "video_seconds"]

# How whole files end, by Pillow's names of formats; a WebP that is cut off has no header for Pillow.
ENDINGS = {
    "JPEG": re.compile(rb"\xff\xd9"),
    "PNG": re.compile(rb"IEND"),
    "GIF": re.compile(rb";\0*\Z"),
    "WEBP": re.compile(rb""),
}
TAIL_BYTES = 16  # in which they end, but for what cameras and servers put behind it
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_settings = threading.Lock()  # Pillow's limits are module-wide


def _renew_lock() -> None:
    """Replace the lock: a process forked while a thread holds it would wait for that thread for ever."""
    global _settings
    _settings = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def open_picture(source: object, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open the picture of a source, decoded, upright, in RGB.

    Args:
        source: a path, bytes, base64 text or data URI, {"bytes": ..., "path": ...}, or Pillow's own image.
        name: its name in errors ("row 7, image 2"), in source of its path or size.
        max_pixels: width x height that is refused above.

    Raises:
        FinetuneError: missing, a URL, no picture, cut off, empty, too large, or of numbers without a known range.
    """
    if isinstance(source, Image.Image):
        return _checked(source, ImageSource(Path(), name or "a picture in memory"), max_pixels)
    named = image_source(source, name)
    with _opened(named) as image:
        picture = _checked(image, named, max_pixels)
        if image.format == "JPEG2000" and not _has_end(named):
            raise named.fault("a JPEG2000 that is cut off: it has no end marker; replace it.")
        return picture


def frames_of(
    source: object,
    count: int,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    choose: Callable[[int, int], list[int]] = frame_indices,
) -> list[Image.Image]:
    """Open `count` frames of a video, in order, in RGB; which of all, `choose` says: by default at most so many.

    A video is an animated GIF, WebP or PNG; a directory of pictures, in the order of their names, numbers by value; a
    list of pictures; or a file that PyAV reads (MP4, WebM, ...), where it is installed. A still picture has one frame.

    Raises:
        FinetuneError: as `open_picture`; a directory without pictures; a video that PyAV is needed for, or can't read.
    """
    if isinstance(source, list | tuple):
        name = name or "a video"
        indices = _indices(len(source), count, name, choose)
        return [open_picture(source[i], name=f"{name}, frame {i + 1}", max_pixels=max_pixels) for i in indices]
    named = image_source(source, name)
    if isinstance(named.file, Path) and named.file.is_dir():
        files = _pictures_in(named.file)
        return [open_picture(files[i], max_pixels=max_pixels) for i in _indices(len(files), count, named.name, choose)]
    if not _is_picture(named):
        from finetune.media.videos import frames_of_video_file

        return frames_of_video_file(named, count, max_pixels, choose)
    with _opened(named) as image:
        indices = _indices(_count_frames(image, named), count, named.name, choose)
        return [_frame(image, i, named, max_pixels) for i in indices]


def size_of(source: object, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Give the width and height that the picture of a source will have, by its header.

    No pixel is decoded, unless the file does not end as whole ones of its format do: then all are, to see why.

    Raises:
        FinetuneError: as `open_picture`, for what a header and the last bytes can tell.
    """
    named = image_source(source, name)
    with _opened(named) as image:
        check_size(image.size, named, max_pixels)
        if not _is_whole(named, image.format):
            open_picture(source, name=name, max_pixels=max_pixels)
        # A PNG would be decoded in search of an EXIF block behind its pixels.
        has_exif = image.format != "PNG" or "exif" in image.info
        return image.size[::-1] if has_exif and _orientation(image) in range(5, 9) else image.size


def frame_count(source: object, count: int, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> int:
    """Count the frames that `frames_of` will give, by headers; of a video file at most so many.

    Raises:
        FinetuneError: as `frames_of`, for what headers can tell.
    """
    if isinstance(source, list | tuple):
        for i in _indices(len(source), count, name or "a video"):
            size_of(source[i], name=f"{name or 'a video'}, frame {i + 1}", max_pixels=max_pixels)
        return min(len(source), count)
    named = image_source(source, name)
    if isinstance(named.file, Path) and named.file.is_dir():
        return frame_count(_pictures_in(named.file), count, name=named.name, max_pixels=max_pixels)
    if not _is_picture(named):
        if importlib.util.find_spec("av") is None:
            raise named.fault(f"no picture that Pillow reads; a video needs PyAV: {install_line('av')}")
        return count
    with _opened(named) as image:
        check_size(image.size, named, max_pixels)
        return min(_count_frames(image, named), count)


def video_digest(source: object, *, name: str | None = None) -> str:
    """Digest what a video is read from, whatever it is called: the file, or all its frames in their order.

    Raises:
        FinetuneError: it is not there.
    """
    if isinstance(source, list | tuple):
        return hashlib.sha256("".join(video_digest(frame, name=name) for frame in source).encode()).hexdigest()
    file = image_source(source, name).file
    if not isinstance(file, Path):
        return hashlib.sha256(file.getvalue()).hexdigest()
    if file.is_dir():
        return video_digest(_pictures_in(file), name=name)
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def video_seconds(source: object, *, name: str | None = None) -> float:
    """Return how long the file of a video lasts: its frames by their mean rate; 0 where the file has no times.

    Raises:
        FinetuneError: it is not there, or no video that can be read.
    """
    named = image_source(source, name)
    if not _is_picture(named):
        from finetune.media.videos import seconds_of_video_file

        return seconds_of_video_file(named)
    milliseconds = 0.0
    with _opened(named) as image:
        for i in range(_count_frames(image, named)):
            try:
                image.seek(i)
            except Exception as error:  # as above
                raise named.fault(f"frame {i + 1} is damaged or cut off ({error}); replace it.") from error
            milliseconds += image.info.get("duration", 0)
    return milliseconds / 1000


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture to 8-bit RGB: greys of 16 bits scaled, transparent parts on white.

    Raises:
        FinetuneError: numbers of 32 bits, whose range is not in the file.
    """
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _from_sixteen_bits(image)
    if image.mode in ("I", "F"):
        raise FinetuneError(f"numbers of 32 bits (mode {image.mode}) without a known range; save it with 8 or 16 bits.")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF orientation says; itself where that is missing or damaged."""
    return ImageOps.exif_transpose(image) if _orientation(image) in range(2, 9) else image


def _orientation(image: Image.Image) -> int:
    try:
        with _settings, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block may raise anything, and has nothing to do with the pixels
        return 1


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    grey = np.asarray(image).astype(np.uint32)
    grey8 = ((grey * 255 + 32767) // 65535).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):  # the one value that a PNG calls transparent
        grey8[grey == clear] = 255
    return Image.fromarray(grey8).convert("RGB")


def _checked(image: Image.Image, source: ImageSource, max_pixels: int) -> Image.Image:
    """Return the opened image, decoded and converted; its size is known before that."""
    check_size(image.size, source, max_pixels)
    if image.format == "EPS":  # would be run as a program, by Ghostscript
        raise source.fault("EPS has no pixels of its own; convert it to PNG.")
    try:
        with _whole_or_nothing():
            image.load()
        return as_rgb(upright(image))
    except FinetuneError as error:
        raise source.fault(str(error)) from error
    except Exception as error:  # decoders of damaged files raise anything
        raise source.fault(
            f"a {image.format or 'picture'} that is damaged or cut off ({error}); replace it."
        ) from error


def _has_end(source: ImageSource) -> bool:
    """Whether a JPEG 2000 has its end marker, which its data can't contain; its decoder does not check it."""
    content = source.file.read_bytes() if isinstance(source.file, Path) else source.file.getvalue()
    return b"\xff\xd9" in content


def _is_whole(source: ImageSource, kind: str | None) -> bool:
    """Whether a file ends as whole ones of its format do; False where only decoding it would tell."""
    if kind not in ENDINGS:
        return False
    if not isinstance(source.file, Path):
        return ENDINGS[kind].search(source.file.getvalue()[-TAIL_BYTES:]) is not None
    with source.file.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return ENDINGS[kind].search(file.read()) is not None


@contextmanager
def _opened(source: ImageSource) -> Iterator[Image.Image]:
    """Return the image of a source, its header read. Pillow's own limit is off meanwhile: ours comes next."""
    if isinstance(source.file, Path) and source.file.is_dir():
        raise source.fault("a directory; expected the file of a picture.")
    try:
        image = _header(source)
    except Image.UnidentifiedImageError as error:
        raise source.fault(
            "not a picture that Pillow reads, or one without pixels; convert it to PNG or JPEG, or leave it out."
        ) from error
    except Exception as error:  # as above
        raise source.fault(f"a picture whose header can't be read ({error}); replace it.") from error
    with image:
        yield image


def _header(source: ImageSource) -> Image.Image:
    with _settings, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong becomes an error, or does no harm
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source.file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _whole_or_nothing() -> Iterator[None]:
    """Within this, Pillow refuses files that are cut off, even if other code had it accept them."""
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        yield
        return
    with _settings:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def _is_picture(source: ImageSource) -> bool:
    try:
        with _header(source):
            return True
    except Image.UnidentifiedImageError:
        return False
    except Exception:  # a picture after all: opening it again raises what is wrong
        return True


def _indices(total: int, count: int, name: str, choose: Callable[[int, int], list[int]] = frame_indices) -> list[int]:
    if total < 1:
        raise FinetuneError(f"{name}: a video without frames; expected at least one.")
    return choose(total, count)


def _pictures_in(directory: Path) -> Sequence[Path]:
    """Return the pictures of a directory by their names, numbers by value: frame 9 before 10. Other files are left."""
    kinds = Image.registered_extensions()
    files = [path for path in directory.iterdir() if path.suffix.lower() in kinds and not path.name.startswith(".")]
    return sorted(files, key=lambda path: [int(s) if s.isdecimal() else s for s in re.split(r"(\d+)", path.name)])


def _count_frames(image: Image.Image, source: ImageSource) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception as error:  # as above
        raise source.fault(f"a {image.format} whose frames can't be counted ({error}); replace it.") from error


def _frame(image: Image.Image, i: int, source: ImageSource, max_pixels: int) -> Image.Image:
    check_size(image.size, source, max_pixels)
    try:
        with _whole_or_nothing():
            image.seek(i)
            still = image.copy()
    except Exception as error:  # as above
        raise source.fault(f"frame {i + 1} is damaged or cut off ({error}); replace it.") from error
    return _checked(still, source, max_pixels)
