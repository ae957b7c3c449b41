"""Lazy modules: nothing is imported before it is used, and what is used is the module itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from envbuild.lazy import lazy


def test_a_lazy_module_is_imported_by_its_first_use() -> None:
    program = (
        "import sys\n"
        "from envbuild.lazy import lazy\n"
        "colorsys = lazy('colorsys')\n"
        "assert 'colorsys' not in sys.modules\n"
        "assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)\n"
        "assert sys.modules['colorsys'].rgb_to_hsv is colorsys.rgb_to_hsv\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_module_that_is_there_is_itself() -> None:
    assert lazy("sys") is sys


def test_an_absent_module_is_an_error_of_its_use() -> None:
    absent = lazy("envbuild_absent")
    with pytest.raises(ModuleNotFoundError, match="envbuild_absent"):
        _ = absent.anything
