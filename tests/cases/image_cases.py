"""What the tests of image data share: small images, small archives, and where the real data are, if anywhere."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT

PICKLE = b"cos\nmkdir\n(S'executed'\ntR."  # a pickle that makes a folder when it is read

FOLDERS = [Path(os.environ.get("TINYMAML_DATA") or ROOT / "data"), ROOT.parent / "shared" / "data"]  # of real data


def real(*names: str) -> Path:
    """The folder with real data files, or a skip that says what is missing."""
    for folder in FOLDERS:
        if all((folder / name).exists() for name in names):
            return folder
    pytest.skip(f"needs the real {', '.join(names)} in $TINYMAML_DATA or ../shared/data")


def encoded(pixels: Any, form: str = "PNG", mode: str | None = None) -> bytes:
    """An image file."""
    from PIL import Image

    picture = Image.fromarray(np.asarray(pixels))
    buffer = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, form)
    return buffer.getvalue()


def noise(seed: int, height: int, width: int, channels: int = 3) -> Any:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def lay_out(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
