"""`python -m tests.fuzz TARGET --seconds 60`: feeds a decoder until something is found, or the time is over.

An input that raises what it may not is written to the folder and its error shown; `--input FILE` runs it again.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["predictor_core", "state_store", "worker.hotpath", "msgpack"]):
    from tests.fuzz.targets import TARGETS

INPUT_BYTES_MAX = 16_384


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=0, help="for so long (default: until --runs are made)")
    parser.add_argument("--runs", type=int, default=-1, help="so many inputs (default: no end)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed tries the same inputs")
    parser.add_argument("--found", type=Path, default=Path(".predictor/fuzz"), help="folder for inputs that fail")
    parser.add_argument("--input", type=Path, help="run this one input and nothing else")
    asked = parser.parse_args()
    target = TARGETS[asked.target]
    if asked.input:
        _one(target, asked.input.read_bytes())
        return
    asked.found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(target.begin_with()):
            Path(corpus, f"{number}").write_bytes(data)
        options = [f"-seed={asked.seed}", f"-runs={asked.runs}", f"-max_total_time={asked.seconds}"]
        options += [f"-max_len={INPUT_BYTES_MAX}", "-len_control=0", "-rss_limit_mb=4096", "-timeout=20"]
        options += [f"-artifact_prefix={asked.found}/{asked.target}-", corpus]
        atheris.Setup([sys.argv[0], *options], lambda data: _one(target, data))
        atheris.Fuzz()


def _one(target, data: bytes) -> None:
    try:
        target.run(data)
    except target.errors:
        pass  # a refusal with a name is what a decoder is for


if __name__ == "__main__":
    main()
