"""What the site does not have, it does not link to: the README and other files beside docs/ become plain words."""

import re
from posixpath import dirname, join, normpath
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for every page."""

    def shown(link: re.Match[str]) -> str:
        outside = normpath(join(dirname(page.file.src_uri), link[2])).startswith("..")
        return link[1] if outside else link[0]

    return LINK.sub(shown, markdown)
