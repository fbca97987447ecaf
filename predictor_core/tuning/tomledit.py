"""Changes values in a TOML text and leaves all else as it is: comments, order, spaces, other sections."""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any


def with_values(text: str, section: str, values: Mapping[str, Any]) -> str:
    """The text with these values in a section; ValueError where it is written in a way that this cannot follow."""
    lines = text.splitlines()
    first, last = _section(lines, section)
    missing = dict(values)
    for at in range(first, last):
        key = re.match(r"\s*([A-Za-z0-9_-]+)\s*=", lines[at])
        if key and key[1] in missing:
            lines[at] = f"{key[0]} {_value(missing.pop(key[1]))}{_comment(lines[at][key.end():])}"
    while last > first and not lines[last - 1].strip():
        last -= 1
    lines[last:last] = [f"{name} = {_value(value)}" for name, value in missing.items()]
    changed = "\n".join(lines) + "\n"
    _check(text, changed, section, values)
    return changed


def _section(lines: list[str], section: str) -> tuple[int, int]:
    """Where the section's lines begin and end; it is put at the end if it is missing."""
    heads = [at for at, line in enumerate(lines) if re.match(r"\s*\[", line)]
    for head in heads:
        if re.match(rf"\s*\[\s*{re.escape(section)}\s*\]\s*(#.*)?$", lines[head]):
            return head + 1, next((at for at in heads if at > head), len(lines))
    lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
    return len(lines), len(lines)


def _comment(rest: str) -> str:
    """What stands behind a plain value."""
    found = re.search(r"\s+#[^\"']*$", rest)
    return found[0] if found else ""


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)


def _check(before: str, after: str, section: str, values: Mapping[str, Any]) -> None:
    """Nothing has changed but what should."""
    wanted = tomllib.loads(before)
    wanted[section] = {**wanted.get(section, {}), **values}
    try:
        fits = json.dumps(tomllib.loads(after), default=str, sort_keys=True) == json.dumps(
            json.loads(json.dumps(wanted, default=str)), sort_keys=True
        )
    except tomllib.TOMLDecodeError:
        fits = False
    if not fits:
        raise ValueError(f"[{section}] is not written as plain lines `name = value`, so it cannot be changed safely.")
