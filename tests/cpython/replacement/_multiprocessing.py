"""Found before the interpreter's own `_multiprocessing`, and replaces it by semlock's."""

import sys

import semlock._multiprocessing

sys.modules[__name__] = semlock._multiprocessing
