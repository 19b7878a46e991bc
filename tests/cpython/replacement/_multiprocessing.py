"""Python finds this before its own `_multiprocessing`, and gets semlock's in its place."""

import sys

import semlock._multiprocessing

sys.modules[__name__] = semlock._multiprocessing
