"""kill -9 at any moment leaves a study that goes on and a configuration that is whole."""

import os
import subprocess
import sys
from pathlib import Path


def test_kill_9_leaves_a_resumable_study_and_an_intact_config(tmp_path):
    seed = int.from_bytes(os.urandom(4))
    script = Path(__file__).with_name("victim.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(seed)], capture_output=True, text=True, timeout=120, cwd=Path.cwd()
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert int(done.stdout) >= 25
