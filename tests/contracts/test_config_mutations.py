"""Whatever is wrong in a recipe ends in one screen that names the key (`benchmarks/config_mutations.py`)."""

import tempfile
from pathlib import Path

from config_mutations import Mutation, cases, outcome
from hypothesis import HealthCheck, given, settings

CALM = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@given(cases(("first-light", "caption-model")))
@settings(CALM, max_examples=60)
def test_spoiled_recipes_build_or_are_refused_in_one_screen(case: tuple[str, list[Mutation]]) -> None:
    name, changes = case
    with tempfile.TemporaryDirectory() as folder:
        assert outcome(name, changes, Path(folder) / "run", steps=0).fault == ""


@given(cases(("first-light", "caption-model")))
@settings(CALM, max_examples=8)
def test_some_of_them_take_two_steps(case: tuple[str, list[Mutation]]) -> None:
    name, changes = case
    with tempfile.TemporaryDirectory() as folder:
        assert outcome(name, changes, Path(folder) / "run", steps=2).fault == ""
