"""What the proposer asks for. Every delta is relative to the centre, never to the live vector."""

import enum
import json
from dataclasses import dataclass

from scheduler.hotpath.knobs import Vec


class NoChangeReason(enum.Enum):
    AWAITING_SAMPLES = "awaiting_samples"
    EVAL_TIMEOUT = "eval_timeout"
    SAFE_MODE = "safe_mode"
    CONSTRAINT_VIOLATION = "constraint_violation"
    COOLDOWN_ACTIVE = "cooldown_active"
    BUDGET_EXHAUSTED = "budget_exhausted"
    INVALID_DIGEST = "invalid_digest"
    PAUSED = "paused"
    NOT_LEADER = "not_leader"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class NoChange:
    """Nothing to apply, and why."""

    reason: NoChangeReason


@dataclass(frozen=True)
class ApplyPlus:
    """Move the live vector to one side of the centre."""

    perturbation_id: int
    delta: Vec


@dataclass(frozen=True)
class ApplyMinus:
    """Move the live vector to the other side of the centre."""

    perturbation_id: int
    delta: Vec


@dataclass(frozen=True)
class Update:
    """Commit a new centre; `iteration` is the k that was measured, the gradient is before gain and clipping."""

    iteration: int
    delta: Vec
    gradient_estimate: Vec


Proposal = NoChange | ApplyPlus | ApplyMinus | Update
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def phase_of(proposal: Proposal) -> str:
    """Where the live vector is once the proposal is applied."""
    return {ApplyPlus: "plus", ApplyMinus: "minus"}.get(type(proposal), "centre")


def proposal_id(run_id: str, proposal: Proposal) -> str:
    """Names a proposal; a retry has the same name."""
    if isinstance(proposal, Update):
        return f"{run_id}:{proposal.iteration}:update"
    if isinstance(proposal, NoChange):
        return ""
    return f"{run_id}:{proposal.perturbation_id}:{phase_of(proposal)}"


def encode(proposal: Proposal) -> bytes:
    """The proposal as canonical JSON: equal proposals, equal bytes."""
    body = {"kind": type(proposal).__name__, **vars(proposal)}
    if isinstance(proposal, NoChange):
        body["reason"] = proposal.reason.value
    return _ENCODER.encode(body).encode()
