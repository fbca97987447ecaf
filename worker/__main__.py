"""`python -m worker` is the command `predictor`."""

from worker.cli import main

main()
