"""Runs modules of one of CPython's suites, or some tests of it, and writes down what came out.

Usage: python one.py RESULT.json MODULE,MODULE... [TEST ...]
"""

import faulthandler
import json
import sys
import unittest

# A watchdog: a suite takes one to two minutes, and some seven where one start is slow.
SECONDS = 1200


def all_tests(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from all_tests(test)
        else:
            yield test


def main(result_file, modules, tests):
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    loader = unittest.defaultTestLoader
    everything = sorted(test.id() for test in all_tests(loader.loadTestsFromNames(modules)))
    suite = loader.loadTestsFromNames(tests or modules)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    bad = [*result.failures, *result.errors]
    with open(result_file, "w") as file:
        json.dump(
            {
                "all": everything,
                "run": result.testsRun,
                "skipped": {test.id(): reason for test, reason in result.skipped},
                "bad": {test.id(): traceback for test, traceback in bad},
                "unexpected": [test.id() for test in result.unexpectedSuccesses],
            },
            file,
        )
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","), sys.argv[3:])
