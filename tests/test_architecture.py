"""Dependencies point one way: three leaves that know nothing of each other, and a worker that knows all three."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"predictor_core", "scheduler", "state_store", "worker", "loadtests", "deploy", "tests"}
ALLOWED = {
    "predictor_core": {"jax", "jaxlib", "equinox", "ott", "numpy", "msgpack", "xxhash"},
    "scheduler": {"numpy"},
    "state_store": {"redis", "hiredis", "msgpack", "numpy", "tenacity", "uvloop"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("leaf", ALLOWED)
def test_a_leaf_imports_itself_and_the_packages_it_is_allowed(leaf):
    files = list((ROOT / leaf).rglob("*.py"))
    assert files
    for path in files:
        allowed = ALLOWED[leaf] | ({"pydantic"} if "tuning" in path.parts else set())
        foreign = set(imports(path)) - allowed - {leaf} - set(sys.stdlib_module_names)
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


def test_nothing_imports_the_observers():
    for package in ("predictor_core", "scheduler", "state_store", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            assert not set(imports(path)) & {"loadtests", "tests", "deploy"}, path


def test_only_the_core_knows_jax_and_only_the_store_knows_redis():
    for path in (ROOT / "worker").rglob("*.py"):
        assert not set(imports(path)) & {"jax", "jaxlib", "equinox", "ott", "redis", "hiredis"}, path


def test_the_top_level_holds_what_it_should():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    tops = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    folders = {"predictor_core", "worker", "state_store", "scheduler", "deploy", "tests", "loadtests", "docs"}
    assert tops <= folders | {"pyproject.toml", "README.md", "Makefile", "uv.lock", "LICENSE", "CHANGELOG.md"}


def test_the_pinned_lists_agree_with_the_lock_file():
    check = subprocess.run([sys.executable, "deploy/pins.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
