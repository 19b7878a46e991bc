"""compileall under a start method: compile.py METHOD ARGS... runs `-m compileall ARGS...`.

The interpreter's own default decides otherwise, and differs between versions. What runs is the
standard library's program as it stands.
"""

import multiprocessing
import runpy
import sys

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv.pop(1))
    sys.argv[0] = "compileall"
    runpy.run_module("compileall", run_name="__main__", alter_sys=True)
