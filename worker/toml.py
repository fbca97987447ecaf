"""Writes plain values of two levels as TOML."""

import json
from collections.abc import Mapping
from typing import Any


def toml_text(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """One table a section; a value that is None is left out."""
    blocks = []
    for section, values in sections.items():
        given = {name: value for name, value in values.items() if value is not None}
        blocks.append("\n".join([f"[{section}]", *(f"{name} = {_value(value)}" for name, value in given.items())]))
    return "\n\n".join(blocks)


def _value(value: Any) -> str:
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, list | tuple) else json.dumps(value)
