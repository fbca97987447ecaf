"""What a PromQL query asks for: the metrics that it names and the labels that it names with them.

Enough of the language for our own rules and panels; `promtool` judges the rest where it is installed.
"""

import re

WORDS = {"by", "on", "and", "or", "unless", "without", "ignoring", "group_left", "group_right", "bool", "offset"}
STRING = r'"(?:[^"\\]|\\.)*"'
GROUPED = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*+)(?:\s*\{([^}]*)\})?(?!\s*\()")
MATCHER = re.compile(rf"\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*({STRING})\s*")


def asked(query: str) -> tuple[set[str], set[str], dict[str, set[str]]]:
    """The metrics, the labels that the query groups by, and for each metric the labels it is matched by.

    Raises ValueError where brackets do not pair or a matcher is none.
    """
    _check_brackets(query)
    grouped = {label.strip() for group in GROUPED.findall(query) for label in group.split(",") if label.strip()}
    rest = re.sub(r"\[[^\]]*\]", " ", GROUPED.sub(" ", query))
    matched: dict[str, set[str]] = {}
    for found in SELECTOR.finditer(rest):
        name, matchers = found.group(1), found.group(2)
        if name not in WORDS:
            matched.setdefault(name, set()).update(_labels(matchers or ""))
    return set(matched), grouped, matched


def _labels(matchers: str) -> set[str]:
    labels, at = set(), 0
    while at < len(matchers):
        found = MATCHER.match(matchers, at)
        if found is None or matchers[found.end() : found.end() + 1] not in ("", ","):
            raise ValueError(f"{matchers!r} is no list of matchers")
        labels.add(found.group(1))
        at = found.end() + 1
    return labels


def _check_brackets(query: str) -> None:
    opened, pairs = [], {")": "(", "]": "[", "}": "{"}
    for mark in re.sub(STRING, "", query):
        if mark in pairs.values():
            opened.append(mark)
        elif mark in pairs and (not opened or opened.pop() != pairs[mark]):
            raise ValueError(f"brackets do not pair in {query!r}")
    if opened:
        raise ValueError(f"brackets do not pair in {query!r}")
