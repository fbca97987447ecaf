"""Where the numbers of a tuning go when somebody asks for it: into a settings file, or to a fleet as a new generation.

    {"predictor": {name: value}, "groups": {tenant or asset: {name: value}}}        the values of a generation
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from predictor_core import PredictorConfig
from predictor_core.files import write_atomically
from predictor_core.tuning import roll_back
from state_store import ConfigGeneration, StateStore
from worker.errors import BadInput
from worker.generations import CANARY, of_group
from worker.settings import Settings
from worker.tuning.search import EVERYTHING, Outcome, taken

EMPTY = b"[predictor]\n"


def write_settings(outcome: Outcome, path: Path) -> dict[str, list[Any]]:
    """Writes the adopted numbers; gives what changed. A file that is not there is made."""
    if not outcome.judgement.adopted:
        return {}
    if not path.exists():
        write_atomically(path, EMPTY)
    return outcome.result.export_to_toml(path, check=check_settings)


def check_settings(table: dict[str, Any]) -> None:
    """Refuses a file that a worker would refuse."""
    Settings(**table).config()


def take_back(path: Path) -> dict[str, list[Any]]:
    """Puts the numbers from before the last change back into a settings file."""
    if not path.exists():
        raise BadInput(f"{path} cannot be read: there is no such file")
    return roll_back(path, {"by": "predictor tune --roll-back"})


def present_of(settings: Settings, generation: ConfigGeneration, group: str) -> PredictorConfig:
    """What a group runs with: the settings, over them the fleet's newest generation, over it the group's numbers."""
    everyone = generation.values.get("predictor", {})
    own = of_group(generation.values, group)
    return settings.model_copy(update={"predictor": {**settings.predictor, **everyone, **own}}).config()


async def publish(store: StateStore, known: ConfigGeneration, outcomes: Sequence[Outcome]) -> int | None:
    """Publishes the adopted numbers as the generation after the one that was tuned on; None if there are none."""
    numbers = taken(outcomes)
    if not numbers:
        return None
    values = merged(known.values, numbers)
    number = await store.publish_config(known.number, values)
    if number is None:
        raise BadInput(f"nothing was published: the fleet has left generation {known.number} meanwhile. Tune again")
    changes = {outcome.group: _changes(outcome) for outcome in outcomes if outcome.judgement.adopted}
    await store.append_audit({"event": "config_generation", "generation": number, "by": "tune", "changes": changes})
    return number


def merged(values: dict[str, Any], numbers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A generation's values with the new numbers of all assets or of some groups."""
    groups = dict(values.get("groups", {}))
    for group in numbers.keys() - {EVERYTHING}:
        groups[group] = {**of_group(values, group), **numbers[group]}
    everyone = {**values.get("predictor", {}), **numbers.get(EVERYTHING, {})}
    kept = {name: each for name, each in values.items() if name != CANARY}  # a canary ends: it was tried beside others
    return {**kept, "predictor": everyone, **({"groups": groups} if groups else {})}


def _changes(outcome: Outcome) -> dict[str, list[Any]]:
    return {name: [getattr(outcome.present, name), new] for name, new in outcome.judgement.params.items()}
