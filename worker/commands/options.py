"""Options that several commands share, and the settings that they make."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from worker.settings import Settings

Redis = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="URL",
        help="redis://host:port/db, with user:password@ before the host; rediss:// for TLS; unix:///path. "
        "Or USP_REDIS__URL. Without either: the embedded server in .predictor/redis.",
        show_default=False,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", metavar="NS", help="The fleet's name. Or USP_REDIS__NAMESPACE. (default: usp)"),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML, one section a topic: see config show. Or USP_CONFIG."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for programs.")]


def settings_of(
    redis: str | None = None, namespace: str | None = None, config: Path | None = None, **worker: Any
) -> "Settings":
    """What the flags, the environment and the file say together."""
    from worker.settings import load

    return load({"redis": {"url": redis, "namespace": namespace}, "worker": worker}, config)
