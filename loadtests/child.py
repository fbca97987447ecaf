"""Runs a module as a process that ends with the one that started it: left behind, it would spoil the next measurement.

    python -m loadtests.child PARENT MODULE ARGUMENT...
"""

import runpy
import sys

from worker.lifeline import hold_on_to

if __name__ == "__main__":
    parent, module, *arguments = sys.argv[1:]
    hold_on_to(int(parent))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
