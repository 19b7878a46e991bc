from test.test_multiprocessing_main_handling import *  # noqa: F403
