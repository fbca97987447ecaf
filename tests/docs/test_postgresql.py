"""The tables and statements of the consumer into SQLite are PostgreSQL's too."""

import os
import re
import runpy
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.docs.pages import DOCS

ROW = "'EURUSD', {0}, '{0}-0', 1.5, 1.0, 2.0"


@pytest.fixture
def sql():
    """Runs a script in a PostgreSQL of its own, on a socket in its own folder."""
    if shutil.which("postgres") is None:
        pytest.skip("postgres is not installed")
    tools = Path(shutil.which("postgres")).resolve().parent
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        user = "nobody" if os.geteuid() == 0 else None  # it does not serve root
        if user:
            shutil.chown(folder, user)

        def run(*words, given=""):
            done = subprocess.run(
                [tools / words[0], *words[1:]], input=given, capture_output=True, text=True, user=user, cwd=folder,
                timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done
            return done.stdout

        run("initdb", "-D", f"{folder}/d", "-U", "me", "--auth=trust", "--no-sync")
        run("pg_ctl", "-D", f"{folder}/d", "-l", f"{folder}/log", "-w", "-o", f"-k {folder} -h ''", "start")
        psql = ("psql", "-h", folder, "-U", "me", "postgres", "-qtA", "-v", "ON_ERROR_STOP=1")
        yield lambda script: run(*psql, given=script)
        run("pg_ctl", "-D", f"{folder}/d", "-w", "-m", "immediate", "stop")


def test_a_row_that_comes_again_is_one_row_and_what_was_not_committed_is_not_there(sql):
    consumer = runpy.run_path(str(DOCS / "examples" / "predictions_to_sqlite.py"))
    add, move = (re.sub(r"VALUES \(.*?\)", "VALUES ({})", consumer[name]) for name in ("ADD", "MOVE"))

    def batch(first: int, count: int) -> str:
        rows = [add.format(ROW.format(k)) for k in range(first, first + count)]
        return ";\n".join([*rows, move.format(f"11, '{first + count - 1}-0'")]) + ";\n"

    ask = "SELECT count(*), (SELECT tick_id FROM cursors) FROM predictions;"
    sql(consumer["TABLES"] + "BEGIN;" + batch(1, 3) + "COMMIT;")
    assert sql(ask) == "3|3-0\n"
    sql("BEGIN;" + batch(4, 2))  # the connection ends before COMMIT, as after a kill
    assert sql(ask) == "3|3-0\n"
    sql("BEGIN;" + batch(3, 3) + "COMMIT;")
    assert sql(ask) == "5|5-0\n"
