"""Build the wheel, unpack it into an empty folder, and import the public names from there. Run by ``make test``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, str(ROOT)], check=True)
        wheel = next(Path(folder).glob("headstart-*.whl"))
        subprocess.run([*pip, "install", "--no-deps", "--target", f"{folder}/site", str(wheel)], check=True)
        code = "import headstart as hs; print(hs.__file__); [getattr(hs, n) for n in hs.__all__]; from headstart.report import render"
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": f"{folder}/site"}
        )
        if not done.stdout.startswith(os.path.realpath(folder)):
            raise SystemExit(f"the wheel was not what was imported: {done.stdout}")
    print("1 passed, 0 failed (wheel: built, unpacked, public names imported)")


if __name__ == "__main__":
    main()
