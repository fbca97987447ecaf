"""The documentation as a site: it builds without a warning, knows every page, and asks nothing of other addresses."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import DOCS, ROOT

CONFIG = DOCS / "site" / "mkdocs.yml"
PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", CONFIG, "-d", folder]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


class Addresses(HTMLParser):
    """What a browser fetches by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in LOADED and given.get("rel") != "canonical" and given.get(LOADED[tag]):
            self.fetched.append(given[LOADED[tag]])


def entries(part) -> list[str]:
    if isinstance(part, str):
        return [part]
    return [page for each in (part.values() if isinstance(part, dict) else part) for page in entries(each)]


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    nav = entries(yaml.safe_load(CONFIG.read_text())["nav"])
    assert sorted(nav) == PAGES, "list the page in docs/site/mkdocs.yml"


def test_every_page_is_built_with_the_files_it_takes_in(site):
    for page in PAGES:
        assert (site / page).with_suffix(".html").exists(), page
    assert "ON CONFLICT DO NOTHING" in (site / "guides" / "reading-predictions.html").read_text()
    assert (site / "architecture.svg").exists() and (site / "clients" / "node" / "producer.mjs").exists()


def test_a_reader_without_a_network_misses_nothing(site):
    for page in site.rglob("*.html"):
        addresses = Addresses()
        addresses.feed(page.read_text())
        assert addresses.fetched
        assert not [each for each in addresses.fetched if re.match(r"(\w+:)?//", each)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", *(f"docs/{page}" for page in PAGES)])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for text, target in links(path.read_text()):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists() and there.is_relative_to(ROOT), f"[{text}]({target})"
        if anchor:
            assert anchor in anchors(there.read_text()), f"[{text}]({target})"


def links(text: str) -> list[tuple[str, str]]:
    outside_code = re.sub(r"^```.*?^```|`[^`\n]*`", "`code`", text, flags=re.S | re.M)
    return re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", outside_code)


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub and the site write them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_drawing_is_current():
    check = subprocess.run([sys.executable, DOCS / "site" / "make_architecture.py", "--check"], capture_output=True)
    assert check.returncode == 0, check.stderr
