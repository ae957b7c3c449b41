"""Prints where the packages come from and solves a small system with them."""

import sys

import numpy
import patsy
import scipy.linalg

design = patsy.dmatrix("x + z", {"x": [1.0, 2.0, 4.0, 8.0], "z": [1.0, 3.0, 2.0, 5.0]})
solution, *_ = scipy.linalg.lstsq(numpy.asarray(design), numpy.array([1.0, 2.0, 3.0, 4.0]))
print(sys.prefix, sys.version.split()[0], "numpy", numpy.__version__, "scipy", scipy.__version__)
print("coefficients", solution.round(6).tolist())
