"""Our exception hierarchy:

* PredictorError
  x CorruptRecord   the bytes of a state are damaged: restore them, or let the asset start cold
  x WrongLayout     the bytes are whole, but made for other state rows: migrate, or use the config that made them
  x WrongShape      arrays that do not fit together, or not this program
  x BadObservation  (ValueError) something else than one number at one moment was handed in; nothing changed
  x NothingSeen     a forecast was asked of a predictor that has seen no value
  x Diverged        (RuntimeError) a history led to numbers that are not finite; the state before it was kept
  x ConfigRefused   a new config would throw the state away, and nobody allowed that
  x SnapshotError   (ValueError)
    - IntegrityError    the file is damaged: load an older one, or start cold
    - SchemaMismatch    the file is whole, but its schema or its shapes are not those of the running config
    - NoSnapshot        there is none, or none that can be used
  x WriteFailed     (OSError) a file could not be written; what was there before is untouched
    - InsufficientStorage   too little space is left to begin

And our warnings, each shown once when an episode begins:

* PredictorWarning  (UserWarning)
  x StalenessWarning    a tick was older on arrival than staleness_ttl_ns: the weights stand still
  x FrequencyWarning    the gap before a tick was far longer than this asset's own pace

A number out of range in a config is a ValueError, as everywhere in Python.
"""


class PredictorError(Exception):
    """Anything that predictor_core refuses to do."""


class CorruptRecord(PredictorError):
    """The bytes of a state are damaged."""


class WrongLayout(PredictorError):
    """The bytes of a state belong to another layout."""


class WrongShape(PredictorError, ValueError):
    """Arrays do not fit together, or not this program."""


class BadObservation(PredictorError, ValueError):
    """Something else than one number at one moment."""


class NothingSeen(PredictorError):
    """A forecast was asked of a predictor that has seen no value."""


class Diverged(PredictorError, RuntimeError):
    """A history led to numbers that are not finite."""


class ConfigRefused(PredictorError):
    """A new config would throw the state away."""


class SnapshotError(PredictorError, ValueError):
    """A snapshot cannot be used."""


class IntegrityError(SnapshotError):
    """The bytes of a snapshot are damaged."""


class SchemaMismatch(SnapshotError):
    """A snapshot belongs to another schema or other shapes."""


class NoSnapshot(SnapshotError):
    """There is no snapshot that could be loaded."""


class WriteFailed(PredictorError, OSError):
    """A file could not be written."""


class InsufficientStorage(WriteFailed):
    """Too little space is left to begin writing."""


class PredictorWarning(UserWarning):
    """A doubtful tick, told once an episode."""


class StalenessWarning(PredictorWarning):
    """A tick was too old on arrival."""


class FrequencyWarning(PredictorWarning):
    """The gap before a tick was far longer than usual."""
