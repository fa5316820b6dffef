"""Write a file completely or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"  # prefix of temporary files; a killed process may leave some


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary file next to ``path``; move it there once it is on disk, delete it on an error."""
    if path.is_dir():
        raise ValueError(f"expected an output file, got the folder {path}: name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"expected an existing output folder, got {path.parent}: create it first")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    except OSError as error:
        folder = f"{path.parent} ({error.strerror})"
        raise ValueError(f"expected a writable output folder, got {folder}: choose another") from None
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.chmod(0o644)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
