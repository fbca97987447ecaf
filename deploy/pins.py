"""Writes deploy/requirements.txt and deploy/environment.yml from uv.lock; `--check` only compares."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOTE = "# Generated from uv.lock by `make lock`; do not edit.\n"


def requirements() -> str:
    """The exact pins of the product, without the development tools."""
    command = [Path(sys.executable).with_name("uv"), "export", "--frozen", "--no-dev", "--no-emit-project"]
    command += ["--no-hashes", "--no-annotate", "--no-header", "--quiet"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE.parent).stdout


def environment(pins: str) -> str:
    """The same pins as a conda environment."""
    lines = [f"      - {pin}" if "'" not in pin else f'      - "{pin}"' for pin in pins.splitlines()]
    head = "name: universal-predictor\nchannels:\n  - conda-forge\ndependencies:\n  - python=3.12\n  - pip\n  - pip:\n"
    return head + "\n".join(lines) + "\n"


def main() -> int:
    pins = requirements()
    wanted = {"requirements.txt": NOTE + pins, "environment.yml": NOTE + environment(pins)}
    if "--check" in sys.argv[1:]:
        stale = [name for name, text in wanted.items() if (HERE / name).read_text() != text]
        for name in stale:
            print(f"deploy/{name} does not agree with uv.lock; run: make lock", file=sys.stderr)
        return 1 if stale else 0
    for name, text in wanted.items():
        (HERE / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
