"""The bench's programs load with the package as it is; what they measure is measured on a host."""

import importlib.util
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.mark.parametrize("program", ["bench.py", "measure.py"])
def test_a_program_of_the_bench_loads(program: str) -> None:
    spec = importlib.util.spec_from_file_location(program.removesuffix(".py"), BENCH / program)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
