"""The C kernels under AddressSanitizer and UndefinedBehaviorSanitizer: `python -m tests.chunker.sanitize`.

Every buffer is allocated at its exact size, so an access one byte outside ends the program, and every answer is
compared with the Python reference.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from chunker import _kernel as extension
from tests.chunker.native import MissingToolError, build, compare

_SANITIZERS: Final = "-fsanitize=address,undefined"
_OPTIONS: Final = (_SANITIZERS, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1")
_CASES: Final = 2000


def run(folder: Path, count: int = _CASES) -> None:
    """Build into the folder and compare.

    Raises:
        MissingToolError: GCC or its sanitizers' runtime is missing.
        AssertionError, subprocess.CalledProcessError: as native.compare.
    """
    compiler = shutil.which("gcc")
    if compiler is None:
        raise MissingToolError("gcc is missing (Debian: gcc)")
    empty = folder / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    probe = [compiler, _SANITIZERS, str(empty), "-o", str(folder / "empty")]
    if subprocess.run(probe, check=False, capture_output=True).returncode != 0:
        raise MissingToolError("gcc's sanitizer runtime is missing (Debian: libasan and libubsan of the gcc's version)")
    program = folder / "driver"
    build([compiler, *_OPTIONS], program)
    compare([str(program)], extension.KERNELS, count)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(Path(folder))
        except MissingToolError as reason:
            sys.exit(str(reason))


if __name__ == "__main__":
    main()
