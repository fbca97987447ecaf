"""The version of this installation."""

import importlib.metadata


def version() -> str:
    try:
        return importlib.metadata.version("universal-predictor")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
