"""Lets hypothesis take its time: a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("scheduler", deadline=None)
settings.load_profile("scheduler")
