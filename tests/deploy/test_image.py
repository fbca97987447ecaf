"""The image: what its recipe says, and the product run as the image runs it (there is no Docker engine here)."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.error
from functools import partial
from pathlib import Path

import pytest

from tests.deploy.deployed import CACHE, DEPLOY, PREDICTOR, ROOT, fetch, free_port, running, wait_for
from worker.settings import load

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTRUCTIONS = {
    "ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
    "ENTRYPOINT", "CMD",
}  # fmt: skip
UID = 65532


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, an instruction and its words."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Each stage's instructions, those of the stages it begins with in front."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            base, as_, name = rest.split()
            assert as_ == "AS" and (base in found or base == "${PYTHON_IMAGE}"), rest
            found[name] = list(found.get(base, []))
        elif name:
            found[name].append((word, rest))
    return found


def last(stage: list[tuple[str, str]], wanted: str) -> str:
    return [rest for word, rest in stage if word == wanted][-1]


def environment() -> dict[str, str]:
    """ENV of the image."""
    pairs = " ".join(rest for word, rest in stages()["runtime"] if word == "ENV")
    return dict(pair.split("=", 1) for pair in shlex.split(pairs))


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the repository out; the last line that fits decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.lstrip("!").removeprefix("**/")
            parts = [path, *map(str, Path(path).parents), *(Path(path).parts if "**/" in line else ())]
            if any(fnmatch.fnmatch(part, pattern) for part in parts if part != "."):
                verdict = not line.startswith("!")
    return verdict


def test_every_instruction_and_every_stage_is_one_that_there_is():
    assert {word for word, _ in instructions()} <= INSTRUCTIONS
    assert list(stages())[-1] == "cpu", "the last stage is what `docker build` makes"
    assert set(stages()) == {"build", "build-cuda", "runtime", "cuda", "cpu"}


def test_the_base_is_pinned_and_has_a_python_that_the_product_takes():
    (image,) = (rest.split("=", 1)[1] for word, rest in instructions() if rest.startswith("PYTHON_IMAGE="))
    python = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-\w+", image)
    assert python and "3.11" <= python.group(1) < "3.13", "with the packaged Redis, for `predictor redis`"
    assert sum(rest.startswith("${PYTHON_IMAGE}") for word, rest in instructions() if word == "FROM") == 2


def test_what_is_copied_is_there_and_is_all_that_the_wheel_holds():
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    sources = [source for line in copied for source in line]
    for source in sources:
        assert (ROOT / source).exists() and not ignored(source), source
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) | {"pyproject.toml", "uv.lock", "README.md", "LICENSE"} == set(sources)
    for word, rest in instructions():
        if "--from=" in rest:
            assert word == "COPY" and re.search(r"--from=([\w-]+)", rest).group(1) in stages()


@pytest.mark.parametrize(
    "path", [".git/config", ".venv/bin/python", "tests/conftest.py", "worker/__pycache__/x.pyc", ".predictor/redis/x"]
)
def test_what_the_image_does_not_need_is_not_even_sent(path):
    assert ignored(path)
    assert not ignored("worker/cli.py") and not ignored("state_store/commit.py")


def test_packages_come_from_the_lock_file_and_development_tools_do_not_come():
    syncs = [rest for word, rest in instructions() if word == "RUN" and "uv sync" in rest]
    assert len(syncs) == 3 and all("--frozen" in rest and "--no-dev" in rest for rest in syncs)
    version = next(rest.split("=")[1] for word, rest in instructions() if rest.startswith("UV_VERSION="))
    assert f"uv=={version}" in (ROOT / "Makefile").read_text()
    assert "cuda" in PROJECT["project"]["optional-dependencies"] and "--extra cuda" in syncs[-1]
    command = [PREDICTOR.with_name("uv"), "export", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes"]
    cuda = subprocess.check_output([*command, "--extra", "cuda", "--quiet"], text=True, cwd=ROOT)
    pins = {line for line in (DEPLOY / "requirements.txt").read_text().splitlines() if not line.startswith("#")}
    assert pins <= {line.strip() for line in cuda.splitlines()}, "both images have the same packages"
    assert re.search(r"^jax-cuda13-plugin==", cuda, re.M) and "pytest" not in cuda


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_both_images_run_the_command_as_a_number_and_stop_in_order(target):
    stage = stages()[target]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last(stage, "USER")) and last(stage, "STOPSIGNAL") == "SIGTERM"
    (entry,) = json.loads(last(stage, "ENTRYPOINT"))
    assert entry in PROJECT["project"]["scripts"] and json.loads(last(stage, "CMD")) == ["worker"]
    assert "/livez" in last(stage, "HEALTHCHECK") and last(stage, "VOLUME") == last(stage, "WORKDIR")


def test_the_environment_of_the_image_is_settings(monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    worker = load().worker
    assert (worker.http_host, worker.http_port) == ("0.0.0.0", int(last(stages()["cpu"], "EXPOSE")))
    assert str(worker.cache_dir).startswith(last(stages()["cpu"], "VOLUME"))


CONFINED = """
mount -t tmpfs -o mode=755 tmpfs /var/lib && mkdir /var/lib/predictor && mount --bind "$STATE" /var/lib/predictor
mount -o remount,ro /var/lib
mount -o remount,bind,ro /
cd /var/lib/predictor
exec setpriv --no-new-privs $AS -- "$@"
"""


def confined(state: Path) -> tuple[list[str], dict[str, str]]:
    """A command and its environment that run the rest as the image would: read-only, as a number, or without rights."""
    if os.geteuid() or not (shutil.which("setpriv") and subprocess.run(["unshare", "--mount", "true"]).returncode == 0):
        pytest.skip("a read-only root needs the right to mount")
    python = os.path.realpath(sys.executable)
    as_number = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    if subprocess.run([*as_number, "test", "-x", python]).returncode == 0:
        rights = " ".join(as_number[1:])
        os.chown(state, UID, UID)
    else:  # an interpreter in root's home
        rights = "--bounding-set=-all --inh-caps=-all"
    told = {"STATE": str(state), "AS": rights}
    return ["unshare", "--mount", "--propagation", "private", "sh", "-euc", CONFINED, "sh"], told


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """What the build stage makes: its own commands, on its own files."""
    context = tmp_path_factory.mktemp("context")
    for word, rest in stages()["build"]:
        if word == "COPY":
            *sources, _ = rest.split()
            for source in sources:
                kept = shutil.ignore_patterns("__pycache__", "results")
                copy = shutil.copy if (ROOT / source).is_file() else partial(shutil.copytree, ignore=kept)
                copy(ROOT / source, context / source)
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    env |= {"UV_PROJECT_ENVIRONMENT": str(context / "made"), "UV_PYTHON": sys.executable}
    for line in (rest for word, rest in stages()["build"] if word == "RUN" and rest.startswith("uv ")):
        command = [str(PREDICTOR.with_name("uv")), *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=context, env=env, capture_output=True, text=True, timeout=240)
        if "error sending request" in done.stderr:
            pytest.skip("the package index cannot be reached")
        assert done.returncode == 0, done.stderr
    return context / "made"


def test_the_build_makes_the_command_with_all_its_files_and_no_tools(installed):
    packages = next((installed / "lib").glob("python*")) / "site-packages"
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        ours = {str(file.relative_to(ROOT)) for file in (ROOT / package).rglob("*") if file.is_file()}
        ours = {file for file in ours if "__pycache__" not in file and not file.startswith("loadtests/results")}
        assert not {file for file in ours if not (packages / file).exists()}, package
    assert (installed / "bin" / "predictor").exists() and not (packages / "pytest").exists()


def test_a_worker_runs_with_a_read_only_root_is_found_healthy_and_ends_in_order(guarded, program, installed, tmp_path):
    state = tmp_path / "state"
    shutil.copytree(CACHE, state / "cache")
    prefix, told = confined(state)
    told["PATH"] = f"{installed}/bin:{os.environ['PATH']}"
    port = free_port()
    env = environment() | told | {"USP_CONFIG": str(guarded.users / "worker.toml"), "USP_WORKER__HTTP_PORT": str(port)}
    for file in ("/etc/predictor-was-here", str(tmp_path / "x")):
        assert subprocess.run([*prefix, "touch", file], env=env, capture_output=True).returncode != 0
    command = [*json.loads(last(stages()["cpu"], "ENTRYPOINT")), *json.loads(last(stages()["cpu"], "CMD"))]
    with running(*prefix, *command, log=tmp_path / "log", env=env) as worker:
        check = json.loads(last(stages()["cpu"], "HEALTHCHECK").split("CMD ")[1])
        check = [word.replace("8080", str(port)) for word in check]
        wait_for(lambda: subprocess.run(check, env=env, capture_output=True).returncode == 0, "a healthy worker")
        wait_for(lambda: ready(port), "a worker that serves")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(45) == 0, (tmp_path / "log").read_text()
        assert subprocess.run(check, env=env, capture_output=True).returncode != 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def ready(port: int) -> bool:
    try:
        return "worker: ok" in fetch(f"http://127.0.0.1:{port}/readyz")
    except urllib.error.HTTPError as error:
        with error:
            return False
