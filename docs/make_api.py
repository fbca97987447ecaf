"""Writes docs/api.md from the docstrings of what the packages offer.

    python docs/make_api.py [--check]     --check only says whether the page is current
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import predictor_core
import state_store
import worker.embedded
import worker.shutdown

PAGE = Path(__file__).with_name("api.md")
OFFERED: dict[ModuleType, list[str]] = {
    predictor_core: predictor_core.__all__,
    worker.embedded: ["PredictorService"],
    worker.shutdown: ["ShutdownMetrics"],
    state_store: ["TickProducer", "PredictionReader", "Prediction"],
}
HEAD = """# What can be imported

Made from the docstrings by `python docs/make_api.py`; a test keeps it current. How it is used is shown in
[library.md](library.md) and in the [README](../README.md). Names that are not here may change in any version.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for module, names in OFFERED.items():
        parts.append(f"## {module.__name__}\n\n{_doc(module)}")
        parts += [_entry(name, getattr(module, name)) for name in sorted(names, key=str.lower)]
    return "\n".join(parts)


def _entry(name: str, thing: Any) -> str:
    told = f"### {name}\n\n{_code(name, thing)}\n{_doc(thing)}"
    if not inspect.isclass(thing) or issubclass(thing, BaseException):
        return told
    if issubclass(thing, Enum):
        return told + "".join(f"- `{member.name}` = {member.value}\n" for member in thing)
    rows = "".join(f"- `{field}`\n" for field in _fields(thing))
    return told + (rows + "\n" if rows else "") + "".join(_methods(thing))


def _code(name: str, thing: Any) -> str:
    if inspect.isclass(thing):
        bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
        return f"```python\nclass {name}{f'({bases})' if bases else ''}\n```\n"
    return f"```python\n{name}{_signature(thing)}\n```\n"


def _fields(kind: type) -> Iterator[str]:
    """Fields with their defaults, where it has any."""
    if not dataclasses.is_dataclass(kind):
        return
    for field in dataclasses.fields(kind):
        default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
        kind_of = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
        yield f"{field.name}: {_short(kind_of)}{default}"


def _methods(kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        made = name == "__init__" and not dataclasses.is_dataclass(kind)
        doc = inspect.cleandoc(member.__doc__ or "") if made or not name.startswith("_") else ""
        if not made and not doc:
            continue
        call = kind.__name__ if made else f"{kind.__name__}.{name}"
        if isinstance(member, property):
            yield f"**`{call}`**\n\n{doc}\n\n"
        elif callable(function := getattr(member, "__func__", member)):
            yield f"**`{call}{_signature(function)}`**\n\n" + (f"{doc}\n\n" if doc else "")


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    kept = [_plain(one) for name, one in signature.parameters.items() if name not in ("self", "cls")]
    return _short(str(signature.replace(parameters=kept)).replace(" -> None", ""))


def _plain(parameter: inspect.Parameter) -> inspect.Parameter:
    """With a default that reads the same in every process."""
    known = (bool, int, float, str, type(None), inspect.Parameter.empty)
    shown = isinstance(parameter.default, known) or parameter.default is inspect.Parameter.empty
    return parameter if shown else parameter.replace(default=...)


def _short(annotation: str) -> str:
    """Without the modules that a type comes from, and the quotes of one that is named before it is made."""
    named = re.sub(r"<class '([\w.]+)'>", r"\1", annotation).replace("Ellipsis", "...")
    unquoted = re.sub(r"(^|: |-> )'([^']*)'", r"\1\2", named)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", unquoted)


def _doc(thing: Any) -> str:
    return f"{inspect.getdoc(thing) or ''}\n\n"


def main() -> int:
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
    if not current:
        print("docs/api.md is not current: run `python docs/make_api.py`.", file=sys.stderr)
    return int(not current)


if __name__ == "__main__":
    sys.exit(main())
