"""`python -m tests.simulation --seed N [--trace]` replays one history, `--seeds A..B` plays many."""

import argparse
import sys
import time
import traceback

from tests.simulation.history import History


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this history")
    parser.add_argument("--seeds", default="1..1000", help="play these, FIRST..LAST (default %(default)s)")
    parser.add_argument("--trace", action="store_true", help="print every event with its virtual time")
    asked = parser.parse_args()
    first, _, last = asked.seeds.partition("..")
    seeds = range(int(first), int(last) + 1) if asked.seed is None else [asked.seed]
    started, wrong = time.perf_counter(), []
    for seed in seeds:
        try:
            History(seed, trace=asked.trace).run()
        except Exception as error:
            wrong.append(seed)
            if asked.trace:
                traceback.print_exc()
            print(f"seed {seed}: {type(error).__name__}: {error}\n  replay it: {replay_command(seed)}", flush=True)
    seconds = time.perf_counter() - started
    print(f"{len(seeds)} histories, {len(wrong)} wrong, {len(seeds) / seconds:.0f} a second")
    return 1 if wrong else 0


def replay_command(seed: int) -> str:
    return f"python -m tests.simulation --seed {seed} --trace"


if __name__ == "__main__":
    sys.exit(main())
