"""Runs one of CPython's suites, or some tests of it, and writes down what came out.

Usage: python one.py SUITE RESULT.json [TEST ...]
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


def main(name, result_file, tests):
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    module = __import__(name)
    loader = unittest.defaultTestLoader
    everything = sorted(test.id() for test in all_tests(loader.loadTestsFromModule(module)))
    suite = loader.loadTestsFromNames(tests) if tests else loader.loadTestsFromModule(module)
    # setUpModule and tearDownModule belong to the module that the classes are found in.
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
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
