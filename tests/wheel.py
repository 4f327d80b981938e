"""Build the wheel, install it into an empty environment and run its demo there: `python tests/wheel.py`."""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(ROOT))
        wheel = next(place.glob("efface-*.whl"))
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        venv.create(place / "env", with_pip=True)
        python = place / "env" / "bin" / "python"
        run(str(python), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
        run(str(place / "env" / "bin" / "efface"), "demo", "--out", str(place / "demo"), cwd=place)
        report = place / "demo" / "report.html"
        if not report.is_file() or report.stat().st_size < 50_000:
            raise SystemExit(f"{report} is missing or too small to hold its pictures")
        print("the wheel's demo wrote its report")


def run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True)


if __name__ == "__main__":
    main()
