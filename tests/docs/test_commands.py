"""Every command that a page names exists: in blocks it is read whole by the command line, in a sentence by name."""

import importlib.util
import re
import shlex

import pytest
import typer

from tests.docs.pages import DOCS, ROOT
from worker.cli import app

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.S | re.M)
IN_A_SENTENCE = re.compile(r"`((?:predictor|python -m) [^`]+)`")
END = {"|", "||", ">", ">>", "&", "&&", ";", "2>", "<"}


def typed(page):
    """The commands in the blocks of a page, without what a shell does with their output."""
    for block in BLOCK.findall(page.read_text()):
        for line in block.splitlines():
            if re.match(r"(\w+=\S+ )*(predictor|python -m) [\w.]", line):
                words = shlex.split(line, comments=True)
                while "=" in words[0]:
                    words.pop(0)
                yield words[: next((at for at, word in enumerate(words) if word in END), len(words))]


def command_of(words):
    """The command that these words name, and what is left of them."""
    command, name = typer.main.get_command(app), "predictor"
    while words and hasattr(command, "commands"):
        name, words = words[0], words[1:]
        assert name in command.commands, f"predictor has no command {name}"
        command = command.commands[name]
    return command, name, words


def understood(words):
    if words[0] == "predictor":
        command, name, left = command_of(words[1:])
        if not {"...", "…"} & set(left) and not hasattr(command, "commands"):
            command.make_context(name, left)
    else:
        assert importlib.util.find_spec(words[2]), f"there is no module {words[2]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_block_is_understood(page):
    for words in typed(page):
        try:
            understood(words)
        except Exception as error:
            pytest.fail(f"{' '.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_sentence_exists(page):
    for text in IN_A_SENTENCE.findall(page.read_text()):
        words = re.split(r"\s+", text)
        if words[0] == "python":
            assert importlib.util.find_spec(words[2]), text
        else:
            command_of([word for word in words[1:] if re.fullmatch(r"[a-z-]+", word)][:3])


@pytest.mark.parametrize("line", ["predictor nothing", "predictor lag --nothing", "python -m loadtests.nothing"])
def test_a_command_that_does_not_exist_is_found(line):
    with pytest.raises((AssertionError, Exception), match="no command|No such option|no module"):
        understood(shlex.split(line))
