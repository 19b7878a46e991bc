"""Found before the interpreter's own `_multiprocessing`, and replaces it by semlock's."""

import sys

# Where semlock's classes are multiprocessing's, importing them comes by here again, and is not to
# find this half-made.
del sys.modules[__name__]

import semlock._multiprocessing  # noqa: E402

sys.modules[__name__] = semlock._multiprocessing
