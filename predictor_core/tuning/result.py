"""OptimizationResult: what a search came to, and the one way from there into a configuration file."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from . import mutation
from .mutation import Check, MutationLimits
from .study import BayesianMetaOptimizer


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class OptimizationResult(BaseModel):
    """A value: changing a file with it does not change it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_name: str = Field(min_length=1)
    tier: Literal["fast", "deep"]
    best_params: dict[str, Any]
    best_objective: float = Field(allow_inf_nan=False)
    total_iterations: int = Field(ge=0)
    early_stopped: bool
    convergence_delta: float  # what the last ten trials added
    timestamp_utc: str = Field(default_factory=_now)

    @classmethod
    def of(cls, optimizer: BayesianMetaOptimizer, params: dict[str, Any] | None = None) -> "OptimizationResult":
        """Of a search; `params` takes the place of its best candidate."""
        best = optimizer.best
        if best is None:
            raise ValueError(f"the study {optimizer.study_name!r} has no finite trial yet.")
        return cls(
            study_name=optimizer.study_name,
            tier=optimizer.tier,  # type: ignore[arg-type]  # the optimizer has checked it
            best_params=best.params if params is None else params,
            best_objective=best.value,
            total_iterations=optimizer.iteration,
            early_stopped=optimizer.early_stopped,
            convergence_delta=optimizer.convergence_delta(),
        )

    def export_to_toml(
        self,
        path: str | Path = "config.toml",
        backup: bool = True,
        validate: bool = True,
        *,
        check: Check | None = None,
        limits: MutationLimits | None = None,
    ) -> dict[str, list[Any]]:
        """Writes the numbers into the file's [predictor]; gives what changed as name -> [old, new].

        The predictor's own ranges and relations always hold; with `validate` the whole file must pass `check` too.
        Raises ConfigMutationError and leaves the file as it was, FileNotFoundError, or WriteFailed (an OSError).
        """
        why = {"study": self.study_name, "tier": self.tier, "objective": self.best_objective}
        return mutation.change(
            Path(path), self.best_params, why, backup=backup, check=check if validate else None, limits=limits
        )
