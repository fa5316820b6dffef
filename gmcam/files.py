"""Write a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"  # how names begin of what a process that was killed may leave


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, moved there once it is on the disk; a failure leaves neither.

    Raises ``ValueError`` at once for a folder that does not exist or cannot be written.
    """
    if not path.parent.is_dir():
        raise ValueError(f"the output folder {path.parent} does not exist")
    if path.is_dir():
        raise ValueError(f"the output {path} is a folder; name a file in it")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    except OSError as error:
        raise ValueError(f"the output folder {path.parent} cannot be written ({error.strerror})") from None
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
