"""Settings: flag > environment `USP_SECTION__KEY` > TOML file > default, read once into a frozen value.

This is the one place that reads the environment. A mistake is reported with the place where it was made.
"""

import difflib
import json
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from scheduler.storing import StoringRules
from worker.errors import SettingsError

if TYPE_CHECKING:
    from predictor_core import PredictorConfig
    from scheduler.shedding import SheddingRules

PREFIX = "USP_"
BATCHES_IN_FLIGHT_MAX = 8  # Five at most, two holdings that are taken over, and some slack.
FILE_VARIABLE = PREFIX + "CONFIG"
WINDOW_MS_MAX = 100.0
NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RedisSettings(_Section):
    """Where the fleet lives."""

    url: str = Field(
        default="", description="redis:// or rediss:// with user and password in it; empty: the embedded server"
    )
    namespace: str = Field(default="usp", description="the fleet's name: the first part of every key")

    @field_validator("namespace")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not NAMESPACE.fullmatch(name):
            raise ValueError("must be 1 to 64 letters, digits or any of . _ -")
        return name


class WorkerSettings(_Section):
    """One worker process: who it is, how much it takes at once, what it keeps."""

    name: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}", min_length=1, max_length=128)
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65535, description="0: any free port, reported at the start")
    lease_ms: int = Field(default=5000, ge=500, le=600_000, description="a silent worker is replaced after this long")
    capacity: int = Field(default=256, ge=1, le=65_536, description="most partitions held at once")
    rows_max: int = Field(default=4096, ge=1, le=65_536, description="most distinct assets in a micro-batch")
    ticks_max: int = Field(default=4096, ge=1, le=262_144, description="most ticks in a micro-batch")
    ticks_per_asset_max: int = Field(
        default=64, ge=1, le=65_536, description="most ticks of one asset in a micro-batch"
    )
    window_ms: float = Field(
        default=0.0, ge=0, le=WINDOW_MS_MAX, description="how long a micro-batch that is not full waits for more ticks"
    )
    rows_kept: int = Field(
        default=200_000, ge=8, le=16_777_216, description="state rows held in memory while leases hold"
    )
    commit_bytes_max: int = Field(default=1_000_000, ge=65_536, le=268_435_456, description="most bytes in one commit")
    state_every: int = Field(
        default=StoringRules.every,
        ge=1,
        le=1024,
        description="states are stored at most with every n-th commit, one for n / 2 ticks, and when idle",
    )
    rest_ms: float = Field(
        default=20.0, ge=0, le=10_000, description="longest rest of a partition that gave all its ticks; 0: none"
    )
    read_ahead_max: int = Field(default=8192, ge=1, le=1_048_576, description="most ticks of a partition read ahead")
    ticks_kept: int = Field(default=100_000, ge=0, description="ticks of a partition kept behind its cursor")
    predictions_kept: int = Field(default=100_000, ge=0, description="predictions of a partition kept")
    cache_dir: Path | None = Field(default=Path(".predictor/cache"), description="compiled programs; empty: none kept")

    @model_validator(mode="after")
    def _room_for_what_is_in_flight(self) -> "WorkerSettings":
        if self.rows_kept < BATCHES_IN_FLIGHT_MAX * self.rows_max:
            least = BATCHES_IN_FLIGHT_MAX * self.rows_max
            raise ValueError(f"rows_kept must be at least {BATCHES_IN_FLIGHT_MAX} x rows_max = {least}")
        if self.predictions_kept < (least := 2 * self.ticks_max):  # a successor asks them how its ticks were taken
            raise ValueError(f"predictions_kept must be at least 2 x ticks_max = {least}")
        return self

    @field_validator("cache_dir", mode="before")
    @classmethod
    def _empty_is_none(cls, path: Any) -> Any:
        return None if path == "" else path


class SheddingSettings(_Section):
    """When a worker computes less to keep up. A ratio is the time for one tick of each asset over the gap between two
    ticks of one; jitter is in Nyquist intervals (predictor.besov_nyquist_interval_ns). See docs/performance.md.
    """

    smoothing: float = Field(default=0.3, gt=0, le=1, description="weight of the newest time and gap in their averages")
    degrade_ratio: float = Field(default=0.7, gt=0, description="from here on one depth less than the full one")
    critical_ratio: float = Field(
        default=1.0, gt=0, description="from here on the least depth, and beyond without kernels A and B"
    )
    recover_ratio: float = Field(default=0.5, gt=0, description="below it is healthy: the way back")
    recover_observations: int = Field(
        default=20, ge=1, le=1_000_000, description="healthy micro-batches in a row for one step back"
    )
    observations_min: int = Field(default=10, ge=2, le=10_000, description="micro-batches before anything is decided")
    jitter_window: int = Field(default=100, ge=2, le=10_000, description="micro-batches that jitter is taken over")
    jitter_violation: float = Field(default=0.8, gt=0, description="jitter that takes the depth to the least")
    jitter_mean: float = Field(default=0.7, gt=0, description="mean time from which less jitter does so too ...")
    jitter_with_mean: float = Field(default=0.5, gt=0, description="... namely this much")
    jitter_degrade: float = Field(default=0.6, gt=0, description="jitter that costs one step")
    jitter_recover: float = Field(default=0.3, gt=0, description="below it is healthy: the way back")
    alert_after_s: float = Field(default=60.0, ge=0, le=86_400, description="so long below full depth is told")

    @model_validator(mode="after")
    def _that_fit_together(self) -> "SheddingSettings":
        if self.model_fields_set:  # the defaults do, and need no NumPy to be seen so
            self.rules((2, 3, 5), 1)
        return self

    def rules(self, depths: tuple[int, ...], nyquist_ns: int) -> "SheddingRules":
        """What the ladder goes by."""
        from scheduler.shedding import SheddingRules

        given = self.model_dump(exclude={"alert_after_s"})
        return SheddingRules(depths, nyquist_ns=nyquist_ns, alert_after_ns=round(self.alert_after_s * 1e9), **given)


class HotpathSettings(_Section):
    """The tuner: what it aims at and how fast it may go; the same for all workers. See docs/hotpath.md."""

    enabled: bool = Field(default=True, description="off: this worker neither measures nor follows nor leads")
    poll_s: float = Field(default=1.0, ge=0.02, le=60, description="how often workers look for a configuration")
    digest_s: float = Field(default=10.0, ge=0.05, le=600, description="length of one window of measurement")
    digests_per_side: int = Field(default=5, ge=1, le=100, description="windows on each side of the centre")
    settle_s: float = Field(default=15.0, ge=0, le=3600, description="how long a change is left to take effect")
    patience_s: float = Field(default=120.0, ge=0.1, le=36_000, description="longest wait for one side's windows")
    lease_ms: int = Field(default=10_000, ge=200, le=600_000, description="a silent leader is replaced after this long")
    samples_min: int = Field(default=2000, ge=1, description="fewest latencies in a window of the fleet")
    preset: Literal["conservative", "balanced", "aggressive"] = "conservative"
    hourly_budget: float = Field(
        default=0.25, gt=0, le=1000, description="how far a knob may move in an hour, as a share of its range"
    )
    learning_rate: float = Field(default=0.1, gt=0, le=100, description="largest gain; a noisy dry run lowers it")
    perturbation_scale: float = Field(
        default=0.025, gt=0, le=0.1, description="smallest probe, as a share of the range; a noisy dry run raises it"
    )
    seed: int = Field(default=42, ge=0)
    promote: bool = Field(default=False, description="a centre that was good for 20 cycles becomes the baseline")
    p95_target_ms: float = Field(default=100.0, gt=0)
    p99_target_ms: float = Field(default=200.0, gt=0)
    lag_target_s: float = Field(default=1.0, gt=0, description="age of the oldest tick that waits")
    p99_limit_ms: float = Field(default=10_000.0, gt=0, description="beyond it a probe ends at once")
    lag_limit_s: float = Field(default=60.0, gt=0, description="beyond it a probe ends at once")
    utilisation_max: float = Field(
        default=0.9, gt=0, le=1, description="a window in which graph or machine was busier teaches nothing; 1: all do"
    )
    traffic_shift: float = Field(
        default=1.7, gt=1, description="a probe ends when two windows have so many times its ticks, or so much fewer"
    )
    replicas_min: int = Field(
        default=0, ge=0, le=16, description="replicas that must have a decision; at least the server's own minimum"
    )
    canary_settle_s: float = Field(default=60.0, ge=0, le=3600, description="how long new numbers take to have effect")
    canary_round_s: float = Field(default=120.0, ge=0.05, le=86_400, description="shortest round of a canary")
    canary_patience_s: float = Field(default=1800.0, ge=0.1, le=604_800, description="longest round of a canary")
    canary_scored_min: int = Field(default=500, ge=1, description="fewest forecasts of each group in a round")
    canary_harm: float = Field(default=0.1, gt=0, le=10, description="objective worse than the control's that ends it")
    canary_missed_max: float = Field(
        default=0.15, gt=0, le=1, description="how far the bands' coverage may be from theirs; beyond it a canary ends"
    )
    canary_alarms_max: float = Field(
        default=0.05, gt=0, le=1, description="share of ticks with an alarm; beyond it a canary ends"
    )
    canary_level: float = Field(default=0.01, gt=0, lt=0.5, description="how likely chance may be to promote")
    canary_ttl_s: float = Field(default=60.0, gt=0, le=3600, description="a canary without a leader ends after this")
    rejected_limit: float = Field(default=0.5, gt=0, le=1, description="share of dead letters that ends a probe")
    audit_max: int = Field(default=100_000, ge=10, description="audit events that may wait for their archive")
    archive_segment_bytes: int = Field(default=64 << 20, ge=4096, description="a file of the archive is full then")
    archive_segments: int = Field(
        default=16, ge=2, description="so many full files are kept; of smaller ones, as many bytes"
    )
    directory: Path = Field(
        default=Path(".predictor/hotpath"), description="the audit's archive and the last good document"
    )


class LogSettings(_Section):
    """Log lines go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "human"] = Field(
        default="auto", description="auto: human on a terminal, else JSON lines"
    )


class TelemetrySettings(_Section):
    """Traces of micro-batches, for those who have the extra `otel`. See docs/guides/tracing.md."""

    otlp_endpoint: str = Field(default="", description="http://host:4318 of an OTLP collector; empty: no traces")

    @field_validator("otlp_endpoint")
    @classmethod
    def _an_address(cls, text: str) -> str:
        if text and not re.fullmatch(r"https?://[^/?#]+[^?#]*", text):
            raise ValueError("must be the address of a collector, such as http://127.0.0.1:4318")
        return text


class Settings(BaseSettings):
    """Everything a process is told from outside."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    redis: RedisSettings = RedisSettings()
    worker: WorkerSettings = Field(default_factory=lambda: WorkerSettings())
    predictor: dict[str, Any] = Field(default={}, description="fields of PredictorConfig")
    shedding: SheddingSettings = SheddingSettings()
    log: LogSettings = LogSettings()
    hotpath: HotpathSettings = HotpathSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: Any,
        env_settings: Any,
        dotenv_settings: Any,
        file_secret_settings: Any,
    ) -> tuple[Any, ...]:
        return (init_settings,)  # `load` lays the sources over each other, so that it can say which one is wrong

    def config(self) -> "PredictorConfig":
        """The predictor's own settings, checked by the predictor."""
        from predictor_core import PredictorConfig

        try:
            return PredictorConfig.from_mapping(self.predictor)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"[predictor] {error}") from None

    def shown(self) -> dict[str, Any]:
        """Plain values for printing, secrets masked."""
        plain = self.model_dump(mode="json")
        plain["redis"]["url"] = masked(self.redis.url)
        plain["telemetry"]["otlp_endpoint"] = masked(self.telemetry.otlp_endpoint)
        return plain


@dataclass(frozen=True)
class _Layer:
    name: str
    values: Mapping[str, Any]

    def place_of(self, path: tuple[str, ...]) -> str:
        """How a user would call this setting in this layer."""
        if self.name == "environment":
            return PREFIX + "__".join(path).upper()
        if self.name == "command line":
            return "--" + path[-1].replace("_", "-")
        return f"{'.'.join(path)} in {self.name}"

    def has(self, path: tuple[str, ...]) -> bool:
        inner: Any = self.values
        for key in path:
            if not isinstance(inner, Mapping) or key not in inner:
                return False
            inner = inner[key]
        return True


def load(flags: Mapping[str, Mapping[str, Any]] | None = None, file: Path | None = None) -> Settings:
    """Reads every source once; flags that are None were not given."""
    given = {section: {k: v for k, v in keys.items() if v is not None} for section, keys in (flags or {}).items()}
    given = {section: keys for section, keys in given.items() if keys}
    file = file or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    layers = [_Layer("command line", given), _Layer("environment", _environment()), _Layer(str(file), _toml(file))]
    for layer in layers:
        for section, keys in layer.values.items():
            if section in Settings.model_fields and not isinstance(keys, Mapping):
                raise SettingsError(f"{layer.place_of((section,))} must be a section with settings in it, got {keys!r}")
    try:
        return Settings(**reduce(_laid_over, (layer.values for layer in layers)))
    except ValidationError as error:
        raise SettingsError("\n".join(_line(finding, layers) for finding in error.errors())) from None


def masked(url: str) -> str:
    """The URL without its password, which may hold an @ itself."""
    url = re.sub(r"(?<=://)([^:@/]*):.*@", r"\1:***@", url)
    return re.sub(r"(?<=[?&]password=)[^&]*", "***", url)


def _environment() -> dict[str, Any]:
    for name in os.environ:
        section = name.removeprefix(PREFIX).split("__")[0].lower()
        if name.startswith(PREFIX) and name != FILE_VARIABLE and section not in Settings.model_fields:
            raise SettingsError(f"{name} in the environment is not a setting: {_nearest(section, Settings)}")
    values = EnvSettingsSource(Settings)()
    if isinstance(values.get("predictor"), Mapping):
        values["predictor"] = {name: _number_or_text(text) for name, text in values["predictor"].items()}
    return values


def _toml(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the settings file {file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {file} is not valid TOML: {error}") from None


def _number_or_text(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def _laid_over(upper: Mapping[str, Any], lower: Mapping[str, Any]) -> dict[str, Any]:
    """The upper's values where it has any, section by section."""
    both = upper.keys() & lower.keys()
    merged = {**lower, **upper}
    for key in both:
        if isinstance(upper[key], Mapping) and isinstance(lower[key], Mapping):
            merged[key] = _laid_over(upper[key], lower[key])
    return merged


def _line(finding: Any, layers: list[_Layer]) -> str:
    path = tuple(str(part) for part in finding["loc"])
    place = next((layer.place_of(path) for layer in layers if layer.has(path)), ".".join(path))
    if finding["type"] == "extra_forbidden":
        model = Settings if len(path) == 1 else Settings.model_fields[path[0]].annotation
        return f"{place} is not a setting: {_nearest(path[-1], model)}"
    text = finding["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if len(path) == 1:  # a relation between settings of one section
        return f"{path[0]}: {text}"
    return f"{place}: {text}, got {finding['input']!r}"


def _nearest(name: str, model: Any) -> str:
    known = list(model.model_fields)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
