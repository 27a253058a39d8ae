"""Single images of others: decoded whole or refused."""

from __future__ import annotations

import io
import warnings
from typing import Any

from tinymaml.tasks.archive import DataError
from tinymaml.tasks.extras import require

PIXELS = 1 << 26  # of one image at most; Pillow itself begins to warn at about 1.3 times that


def decode(data: bytes, where: str, *, formats: tuple[str, ...], size: tuple[int, int] | None = None) -> Any:
    """A PIL image, decoded to its last pixel.

    Args:
        data: the file's bytes.
        where: its name, for messages.
        formats: those that are tried, in Pillow's names.
        size: (width, height) that it has to have; None allows all up to `PIXELS` in all.

    Raises:
        DataError: it is of none of these formats, damaged, truncated, of a wrong size, or has more than eight bits
            a channel.
        MissingExtra: Pillow is not installed.
    """
    image = require("PIL.Image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", image.DecompressionBombWarning)
            picture = image.open(io.BytesIO(data), formats=formats)
            width, height = picture.size  # from the file's head: nothing is decoded yet
            if size is not None and (width, height) != size:
                raise DataError(f"{where} has {width} x {height} pixels, expected {size[0]} x {size[1]}")
            if width * height > PIXELS:
                raise DataError(f"{where} has {width} x {height} pixels, more than the {PIXELS:,} allowed")
            picture.load()
    except DataError:
        raise
    except Exception as error:  # decoders given damaged files raise all kinds
        raise DataError(f"{where} is not a whole {' or '.join(formats)} image: {error}") from error
    if picture.format == "PNG" and b"IEND\xaeB`\x82" not in data:
        raise DataError(f"{where} is not a whole PNG image: its end is missing")
    if (
        picture.format == "PNG" and data[24] > 8
    ):  # in the file's head; Pillow would drop the lower bits, or all but them
        raise DataError(f"{where} has {data[24]} bits a channel; at most 8 are read")
    return picture
