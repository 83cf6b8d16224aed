"""Frames of a video file (MP4, WebM, ...) by PyAV, which brings FFmpeg along; asked for only when one is met.

Frames are counted by reading the file's packets, without decoding, and the chosen ones are then decoded from the start:
jumping to a time would be quicker, and lands on another frame in many files.
"""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from finetune.sources import Source

__all__ = ["frames_of_film"]


def frames_of_film(place: Source, count: int, max_pixels: int) -> list[Image.Image]:
    """At most `count` frames of the first video stream, uniformly sampled, in order, upright, in RGB.

    Raises:
        FinetuneError: PyAV is not installed; no video, one that is cut off, or frames of too many pixels.
    """
    try:
        import av
    except ImportError as error:
        raise place.fault("no picture that Pillow reads; a video needs PyAV: pip install av") from error
    from finetune.pictures import check_size
    from finetune.points.video import frame_indices

    try:
        total = _frame_count(av, place)
        with av.open(_rewound(place)) as container:
            stream = container.streams.video[0]
            check_size((stream.codec_context.width, stream.codec_context.height), place, max_pixels)
            frames = _decoded(container, stream, frame_indices(total, count))
    except av.error.FFmpegError as error:
        raise place.fault(f"neither a picture nor a video that can be read ({error}); convert it to MP4.") from error
    if len(frames) < min(total, count):
        raise place.fault(f"a damaged video: {total} frames by its packets, fewer could be decoded; replace it.")
    return frames


def _rewound(place: Source) -> Any:
    """What PyAV opens: a path, or bytes from their beginning. Never a URL, which a text could be."""
    if hasattr(place.file, "seek"):
        place.file.seek(0)
        return place.file
    return str(place.file.resolve())


def _frame_count(av: Any, place: Source) -> int:
    """Frames that are shown: packets of the video, without those that an edit list takes out."""
    with av.open(_rewound(place)) as container:
        if not container.streams.video:
            raise place.fault("a file without pictures in it; expected a picture or a video.")
        stream = container.streams.video[0]
        packets = [packet.is_discard for packet in container.demux(stream) if packet.size]
        if len(packets) < stream.frames:
            raise place.fault(f"a video that is cut off: {len(packets)} of {stream.frames} frames; replace it.")
    if not packets.count(False):
        raise place.fault("a video without frames; expected at least one.")
    return packets.count(False)


def _decoded(container: Any, stream: Any, indices: Sequence[int]) -> list[Image.Image]:
    wanted, last, frames = set(indices), indices[-1], []
    for i, frame in enumerate(container.decode(stream)):
        if i in wanted:
            # as EXIF does for photographs: phones film sideways, and say so
            frames.append(frame.to_image().rotate(frame.rotation, expand=True))
        if i == last:
            break
    return frames
