"""Hot reload: a config file is read again when it changed, and taken over only if it is whole.

    unchanged -> None        broken, or of other shapes -> the old config stays, `problem` says why
    changed   -> taken over between two ticks; numbers swap without a new compilation

The file is TOML; the settings lie in its table [predictor], as in the settings of a worker.
"""

import hashlib
import logging
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .config import PredictorConfig
from .errors import ConfigRefused

log = logging.getLogger(__name__)


class Reconfigurable(Protocol):
    """What a reload needs of a predictor."""

    @property
    def config(self) -> PredictorConfig: ...
    def reconfigure(self, config: PredictorConfig, *, allow_restart: bool = False) -> bool: ...


@dataclass(frozen=True)
class Reloaded:
    """What became of a changed file."""

    taken: bool
    state_kept: bool
    problem: str | None = None


def read_config(path: Path | str) -> PredictorConfig:
    """The config of a TOML file; a mistake is a ValueError that names it."""
    return _parsed(Path(path).read_bytes(), Path(path))


class ConfigFile:
    """Looks whether a file has changed since the last look."""

    def __init__(self, path: Path | str, *, allow_restart: bool = False) -> None:
        self._path, self._allow_restart = Path(path), allow_restart
        self._seen = self._digest(self._bytes())

    def poll(self, predictor: Reconfigurable) -> Reloaded | None:
        """Hands a changed file's config to the predictor; None if nothing changed. Never raises for a bad file."""
        content = self._bytes()
        digest = self._digest(content)
        if digest == self._seen:
            return None
        self._seen = digest
        try:
            if content is None:
                raise ValueError(f"{self._path} cannot be read.")
            kept = predictor.reconfigure(_parsed(content, self._path), allow_restart=self._allow_restart)
        except (ValueError, TypeError, ConfigRefused) as error:
            log.error("config_refused", extra={"path": str(self._path), "why": str(error)})
            return Reloaded(False, True, f"{error} The old configuration stays.")
        log.info("config_taken", extra={"path": str(self._path), "state_kept": kept})
        return Reloaded(True, kept)

    def _bytes(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except OSError:
            return None

    def _digest(self, content: bytes | None) -> bytes | None:
        return None if content is None else hashlib.sha256(content).digest()


def _parsed(content: bytes, path: Path) -> PredictorConfig:
    try:
        table = tomllib.loads(content.decode("utf-8"))
        return PredictorConfig.from_mapping(table.get("predictor", {}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a usable config: {error}") from error
