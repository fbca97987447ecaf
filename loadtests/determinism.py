"""How far results agree: within one build, between devices, and between precisions.

    python -m loadtests.determinism [--json] [--ticks N]

    tier 1  CPU, float64    the same process twice, alone and among 200 others, in one run and in many: the same bytes
    tier 2  accelerator     against tier 1, within 1e-6 of the value plus 1e-7 of the scale (where there is one)
    tier 3  CPU, float32    against tier 1, within 1e-3 of the value plus 1e-4 of the scale

Each tier runs in a process of its own. No random number is drawn anywhere in the model, so there is no key to fix; the
machine's own mathematics is what remains, and the fingerprint in every prediction names it. Exits 1 if a tier fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TIERS = {"accelerator_float64": (1e-6, 1e-7), "cpu_float32": (1e-3, 1e-4)}
COMPANY = 200

RUN = """
import sys
import numpy as np
from loadtests.determinism import forecasts
ticks, precision, company, chunk, path = sys.argv[1:]
np.save(path, forecasts(int(ticks), int(precision), int(company), int(chunk)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.determinism", description="How far results agree.")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--ticks", type=int, default=1000)
    given = parser.parse_args()
    figures = compare(given.ticks)
    if given.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:<24} {value}" for name, value in figures.items()))
    sys.exit(not all(figure.get("agrees", True) for figure in figures.values()))


def compare(ticks: int) -> dict[str, dict[str, Any]]:
    """What each tier says of the first."""
    alone = _child(ticks, 64, "cpu")
    figures = {
        "cpu_float64_again": _same(alone, _child(ticks, 64, "cpu")),
        "cpu_float64_in_company": _same(alone, _child(ticks, 64, "cpu", company=COMPANY)),
        "cpu_float64_in_pieces": _same(alone, _child(ticks, 64, "cpu", chunk=7)),
        "cpu_float32": _near(alone, _child(ticks, 32, "cpu"), *TIERS["cpu_float32"]),
    }
    if _accelerator():
        figures["accelerator_float64"] = _near(alone, _child(ticks, 64, ""), *TIERS["accelerator_float64"])
    return figures


def forecasts(ticks: int, precision: int, company: int, chunk: int) -> np.ndarray:
    """Every quantile of one asset's forecasts [ticks, levels], among others or not, in one run or in pieces."""
    from predictor_core import PredictorConfig, Program

    program = Program(PredictorConfig(float_precision=precision), cache_dir=Path(".predictor/cache"))
    assets = company + 1
    values = 100 + np.random.default_rng(0).normal(size=(ticks, assets)).cumsum(0)
    values[:, 0] = 100 + np.random.default_rng(1).standard_t(3, ticks).cumsum()
    rows, mine = program.cold(assets), []
    for first in range(0, ticks, chunk or ticks):
        part = values[first : first + (chunk or ticks)]
        times_ns = np.repeat((first + 1 + np.arange(len(part))) * 10**9, assets)
        row_of = np.tile(np.arange(assets, dtype=np.int32), len(part))
        rows, results = program.run(rows, row_of, part.reshape(-1), times_ns, times_ns)
        mine.append(results["quantiles"][row_of == 0])
    return np.concatenate(mine)


def _child(ticks: int, precision: int, platform: str, company: int = 0, chunk: int = 0) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/forecasts.npy"
        numbers = [str(number) for number in (ticks, precision, company, chunk)]
        environment = {**os.environ, **({"JAX_PLATFORMS": platform} if platform else {})}
        subprocess.run([sys.executable, "-c", RUN, *numbers, path], check=True, env=environment)
        return np.load(path)


def _accelerator() -> bool:
    code = "import jax; print(jax.default_backend())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return told[-1] != "cpu"


def _same(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    return {"agrees": one.tobytes() == other.tobytes(), "numbers": one.size}


def _near(one: np.ndarray, other: np.ndarray, relative: float, absolute: float) -> dict[str, Any]:
    scale = float(np.abs(np.diff(one, axis=0)).mean())
    off = np.abs(one - other)
    return {
        "agrees": bool((off <= relative * np.abs(one) + absolute * scale).all()),
        "largest_relative": float((off / np.abs(one)).max()),
        "mean_relative": float((off / np.abs(one)).mean()),
    }


if __name__ == "__main__":
    main()
