"""The page on deploying: what it types exists, and what it says of numbers is what the files say."""

import re
import shlex
import subprocess

import pytest
import yaml

from tests.deploy.deployed import DEPLOY, ROOT
from tests.deploy.test_compose import SERVICES

PAGE = (ROOT / "docs" / "deploy.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_what_a_line_names_is_there(line, tmp_path):
    words = shlex.split(line)
    assert words[0] in ("docker", "kubectl", "sh", "systemctl")
    for word in words:
        if word.startswith("deploy/"):
            assert (ROOT / word).exists(), word
    if words[0] == "sh":
        done = subprocess.run(["sh", ROOT / words[1], tmp_path / words[2], words[3]], capture_output=True, timeout=30)
        assert done.returncode == 0 and (tmp_path / words[2] / "worker.toml").exists()
    if words[:2] == ["docker", "compose"]:
        services = {word.partition("=")[0] for word in words} & SERVICES.keys()
        assert services == {"worker"}
    if words[0] == "systemctl":
        assert all((DEPLOY / "systemd" / (word.partition("@")[0] + "@.service")).exists() for word in words[3:])


def test_the_name_of_the_secret_and_of_its_host_are_those_of_the_manifests():
    assert "predictor-redis:6379" in PAGE and "generic predictor-redis " in PAGE
    services = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "redis" / "services.yaml").read_text()))
    assert services[0]["metadata"]["name"] == "predictor-redis" and services[0]["spec"]["ports"][0]["port"] == 6379


def test_ports_and_numbers_are_those_of_the_files():
    published = {port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", [])}
    assert {"8700", "9090", "3000"} <= published
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", []))
    scaled = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "scaledobject.yaml").read_text())["spec"]
    assert f"between {scaled['minReplicaCount']} and {scaled['maxReplicaCount']} workers" in PAGE


def test_links_lead_somewhere():
    for place in re.findall(r"\]\(([\w./]+)(?:#[\w-]*)?\)", PAGE):
        assert (ROOT / "docs" / place).exists(), place
