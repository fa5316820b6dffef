"""Search for bytes that break the guarantees in ``readers.py``, along the branches of Pillow's Python code.

    pip install atheris==3.0.0
    python tests/fuzz_readers.py image -max_total_time=600
    python tests/fuzz_readers.py weights -max_total_time=600

Further options are libFuzzer's. Bytes that break a guarantee are written to a file ``crash-…`` in the current
folder; pass that file instead of the options to try them again.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "safetensors", "gmcam.reading", "gmcam.lab.networks"]):
    import readers
    from PIL import Image

    Image.init()  # imports the formats


def main() -> None:
    check, files = {
        "image": (readers.image, readers.images()),
        "weights": (readers.weights, readers.weights_files()),
    }[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(files.values()):
            Path(corpus, str(number)).write_bytes(data)
        folders = [] if any(Path(argument).exists() for argument in sys.argv[1:]) else [corpus]
        limits = [f"-timeout={readers.SECONDS}", "-rss_limit_mb=4096", "-max_len=20000"]
        atheris.Setup([*sys.argv, *folders, *limits], lambda data: check(data) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
