"""Names and values as a table for a person."""

from collections.abc import Mapping
from typing import Any

from worker.lines import printable


def table(facts: Mapping[str, Any], indent: str = "") -> str:
    """Long lists by their length and ends."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", table(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:<28} {printable(_short(value))}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"[{_short(value[0])}, {_short(value[1])}, … {_short(value[-1])}] ({len(value)})"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"[{', '.join(map(_short, value))}]" if isinstance(value, list) else str(value)
