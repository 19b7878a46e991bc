"""Runs modules of one of CPython's suites, or some of their tests, and writes down the outcomes.

Usage: python one.py REQUEST, a JSON object that run.py makes.
"""

import faulthandler
import json
import sys
import unittest

from test.support import script_helper


def all_tests(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from all_tests(test)
        else:
            yield test


def identity(test):
    """A test's id, also for one of its subtests."""
    return getattr(test, "test_case", test).id()


def named(test, exceptions):
    """Whether a test is one of `Class.method`, also in a class made for one start method."""
    return any(test.id().endswith(f".{exception}") for exception in exceptions)


def main(request):
    faulthandler.dump_traceback_later(request["seconds"], exit=True)
    # Otherwise, interpreters that tests start by this module would ignore our PYTHONPATH.
    vars(script_helper)["__cached_interp_requires_environment"] = True
    loader = unittest.defaultTestLoader
    modules, tests = request["modules"], request["tests"]
    everything = [test.id() for test in all_tests(loader.loadTestsFromNames(modules))]
    suite = loader.loadTestsFromNames(modules if tests is None else tests)
    excepted = [test.id() for test in all_tests(suite) if named(test, request["exceptions"])]
    suite = unittest.TestSuite(test for test in all_tests(suite) if test.id() not in excepted)
    if loader.errors:
        sys.exit("\n".join(loader.errors))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    bad = {identity(test): traceback for test, traceback in result.failures + result.errors}
    bad.update((identity(test), "unexpected success") for test in result.unexpectedSuccesses)
    outcome = {
        "all": everything,
        "count": result.testsRun,
        "skipped": {identity(test): reason for test, reason in result.skipped},
        "bad": bad,
        "excepted": excepted,
    }
    with open(request["result"], "w") as file:
        json.dump(outcome, file)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
