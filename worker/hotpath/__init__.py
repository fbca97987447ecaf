"""The tuner inside the fleet: workers measure and follow, one of them leads. `tuning` is where to begin to read."""
