"""The exceptions of tuning, a branch of the predictor's tree:

* PredictorError
  x TuningError
    - MissingExtra          Optuna is not installed: says which extra to install
    - ConfigMutationError   a configuration file was not changed, and why

A damaged study is an IntegrityError, a missing one a FileNotFoundError, one of another search a ValueError.
"""

from ..errors import PredictorError


class TuningError(PredictorError):
    """Anything that tuning refuses to do."""


class MissingExtra(TuningError):
    """A package is needed that the product itself does without."""


class ConfigMutationError(TuningError):
    """A configuration was left as it was."""
