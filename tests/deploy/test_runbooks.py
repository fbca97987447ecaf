"""What the runbooks tell to type is understood; what changes nothing is typed at a running fleet."""

import re
import shlex

import pytest
import typer

from tests.deploy.deployed import ROOT
from worker.cli import app

PAGE = (ROOT / "docs" / "runbooks.md").read_text()
LINES = sorted({line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()})
CHANGES = {"rebuild", "requeue", "purge", "export", "rollback", "reset-safe-mode", "dry-run", "pause"}
WANTS_A_QUIET_FLEET = {"verify"}  # tests/fleet runs it on one
CHANGES_NOTHING = [line for line in LINES if not set(line.split()) & (CHANGES | WANTS_A_QUIET_FLEET)]


def understood(words: list[str]) -> None:
    """Reads the words as the command line does, and runs nothing."""
    command, name = typer.main.get_command(app), "predictor"
    while hasattr(command, "commands"):
        name, words = words[0], words[1:]
        assert name in command.commands, f"{name} is no command"
        command = command.commands[name]
    command.make_context(name, words)


@pytest.mark.parametrize("line", LINES)
def test_every_command_is_understood(line):
    program, *words = shlex.split(line)
    assert program == "predictor"
    understood(words)


@pytest.mark.parametrize("line", ["predictor nothing", "predictor lag --nothing", "predictor state rebuild"])
def test_a_command_that_does_not_exist_is_found(line):
    with pytest.raises((AssertionError, Exception), match="no command|No such option|Missing parameter"):
        understood(shlex.split(line)[1:])


@pytest.mark.parametrize("line", CHANGES_NOTHING)
def test_what_changes_nothing_runs_on_a_fleet_as_it_is_deployed(site, line, command, monkeypatch):
    for name, value in site.env("operator").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(site.folder)
    code, out, err = command(*shlex.split(line)[1:])
    assert not code, (out, err)


def test_links_lead_somewhere():
    for place, anchor in re.findall(r"\]\(([\w.]+)#?([\w-]*)\)", PAGE):
        text = (ROOT / "docs" / place).read_text()
        anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
        assert not anchor or anchor in anchors, (place, anchor)
