"""Kills searches and changes of a file at random moments, and looks at what is left: python victim.py FOLDER SEED."""

import os
import random
import signal
import sys
import time
import tomllib
import warnings
from pathlib import Path

from predictor_core.tuning import BayesianMetaOptimizer, MutationLimits, SearchSpace, mutation

KILLS, TRIALS = 25, 24
SPACE = {"cusum_k": SearchSpace("cusum_k", "float", (0.1, 1.0)), "cusum_h": SearchSpace("cusum_h", "float", (2.0, 9.0))}
BEFORE = "# ours\n[redis]\nurl = ''\n\n[predictor]\ncusum_k = 0.5 # was .4\n"


def value(params):
    return (params["cusum_k"] - 0.3) ** 2 + (params["cusum_h"] - 4) ** 2


def search(folder):
    study = BayesianMetaOptimizer(SPACE, value, "victim", TRIALS, folder=folder)
    if study.path.exists():
        study.load_study(study.path)
    return study


def work(folder):
    """What the child does until it is killed: trials, and after each a change of the file."""
    config = folder / "config.toml"
    limits = MutationLimits(per_hour=10**9)

    def export(study):
        values = {"cusum_k": (0.4, 0.6)[study.iteration % 2]}
        mutation.change(config, values, {"trial": study.iteration}, limits=limits)

    study = search(folder)
    study._watch = export
    study.optimize(checkpoint_interval=1)
    os._exit(0)


def killed_after(delay_s, folder):
    """Whether the child was still at work."""
    child = os.fork()
    if child == 0:
        work(folder)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def check(folder, whole):
    """The study is a beginning of the whole one, the file is one of the two, and both can be worked on."""
    study = search(folder)
    assert study.trials == whole[: study.iteration], "the trials are not those of a search that nobody killed"
    text = (folder / "config.toml").read_text()
    table = tomllib.loads(text)
    assert table["redis"] == {"url": ""} and "# was .4" in text, text
    assert table["predictor"]["cusum_k"] in (0.4, 0.5, 0.6), text
    return study.iteration


def main(root, seed):
    warnings.simplefilter("ignore")  # os.fork beside threads that the child never asks
    generator, kills, round_ = random.Random(seed), 0, 0
    reference = BayesianMetaOptimizer(SPACE, value, "victim", TRIALS, folder=None)
    reference.optimize()
    while kills < KILLS:
        round_ += 1
        folder = root / str(round_)
        folder.mkdir()
        (folder / "config.toml").write_text(BEFORE)
        while killed_after(generator.uniform(0.005, 0.2), folder):
            kills += 1
            check(folder, reference.trials)
        assert check(folder, reference.trials) == TRIALS
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
