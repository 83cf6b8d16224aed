"""Frames of a video file (MP4, WebM, ...) by PyAV, which brings FFmpeg along; imported only for the first one.

Frames are counted by reading the file's packets, without decoding, and the chosen ones are then decoded from the start:
jumping to a time would be quicker, and lands on another frame in many files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from finetune.media.sampling import frame_indices
from finetune.media.size_limit import check_size
from finetune.media.sources import ImageSource
from soup.support.extras import install_line

__all__ = ["frames_of_video_file", "seconds_of_video_file"]


def frames_of_video_file(
    source: ImageSource,
    count: int,
    max_pixels: int,
    choose: Callable[[int, int], list[int]] = frame_indices,
) -> list[Image.Image]:
    """Decode frames of the first video stream, in order, upright, in RGB: those of all that `choose` says.

    Raises:
        FinetuneError: PyAV is not installed; no video, one that is cut off, or frames of too many pixels.
    """
    av = _library(source)
    try:
        total = _frame_count(av, source)
        with _opened(av, source) as container:
            stream = container.streams.video[0]
            check_size((stream.codec_context.width, stream.codec_context.height), source, max_pixels)
            indices = choose(total, count)
            wanted = sorted(set(indices))
            frames = dict(zip(wanted, _decoded(container, stream, wanted), strict=False))
    except av.error.FFmpegError as error:
        raise source.fault(f"neither a picture nor a video that can be read ({error}); convert it to MP4.") from error
    if len(frames) < len(wanted):
        raise source.fault(f"a damaged video: {total} frames by its packets, fewer could be decoded; replace it.")
    return [frames[i] for i in indices]


def seconds_of_video_file(source: ImageSource) -> float:
    """Return how long the first video stream lasts: its frames by their mean rate; 0 where the file tells no rate.

    Raises:
        FinetuneError: PyAV is not installed; no video, or one that is cut off.
    """
    av = _library(source)
    try:
        with _opened(av, source) as container:
            stream = container.streams.video[0]
            rate, frames = float(stream.average_rate or 0), stream.frames  # 0: the file does not say
        return (frames or _frame_count(av, source)) / rate if rate else 0.0
    except av.error.FFmpegError as error:
        raise source.fault(f"no video that can be read ({error}); convert it to MP4.") from error


def _library(source: ImageSource) -> Any:
    try:
        import av
    except ImportError as error:
        raise source.fault(f"no picture that Pillow reads; a video needs PyAV: {install_line('av')}") from error
    return av


def _opened(av: Any, source: ImageSource) -> Any:
    """Return the file, or bytes from their beginning, as a container. A playlist in it can't reach into the network."""
    if isinstance(source.file, BytesIO):
        source.file.seek(0)
    file = str(source.file.resolve()) if isinstance(source.file, Path) else source.file  # never taken for a URL
    container = av.open(file, container_options={"protocol_whitelist": "file"})
    if not container.streams.video or container.format.name == "tty":  # FFmpeg would draw the letters of a text
        container.close()
        raise source.fault("a file without pictures in it; expected a picture or a video.")
    return container


def _frame_count(av: Any, source: ImageSource) -> int:
    """Frames that are shown: packets of the video, without those that an edit list takes out."""
    packets, shown, end_seconds = 0, 0, 0.0
    with _opened(av, source) as container:
        stream = container.streams.video[0]
        for packet in container.demux():
            if packet.size and packet.stream_index == stream.index:
                packets += 1
                shown += not packet.is_discard
            if packet.size and packet.pts is not None:
                end_seconds = max(end_seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packets < stream.frames:
            raise source.fault(f"a video that is cut off: {packets} of {stream.frames} frames; replace it.")
        # Matroska and WebM have no number of frames, but the time; its last second may be anything's
        stated_seconds = (container.duration or 0) / 1e6 if "matroska" in container.format.name else 0
    if stated_seconds - end_seconds > max(1.0, 0.05 * stated_seconds):
        raise source.fault(f"a video that is cut off: {end_seconds:.1f} of {stated_seconds:.1f} seconds; replace it.")
    if not shown:
        raise source.fault("a video without frames; expected at least one.")
    return shown


def _decoded(container: Any, stream: Any, indices: Sequence[int]) -> list[Image.Image]:
    chosen, last, frames = set(indices), indices[-1], []
    for i, frame in enumerate(container.decode(stream)):
        if i in chosen:
            # as EXIF does for photographs: phones video sideways, and have it in the file
            frames.append(frame.to_image().rotate(frame.rotation, expand=True))
        if i == last:
            break
    return frames
