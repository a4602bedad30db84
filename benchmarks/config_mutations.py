"""Does a recipe with something wrong in it always end well? Spoil many, parse, build and step, and look.

    python benchmarks/config_mutations.py [--configs 5000] [--steps 200] [--seed N] [--recipes sdf]

Each case is a recipe with one to three keys replaced, misspelt or taken away (by hypothesis, which makes
what it finds as small as it can). It passes when the recipe is accepted and everything is built, or when it
is refused in one screen that names a key that was spoiled. As many as --steps are also trained for two steps.
The exit code is 1 if a case fails; the first one is printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "contracts"))

from config_mutations import RECIPES, Mutation, cases, outcome
from hypothesis import HealthCheck, given, seed, settings
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from maquette.core.log import set_library_verbosity

CALM = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False)
console = Console()


def tried(count: int, steps: int, names: tuple[str, ...], number: int) -> Counter[str]:
    """Try `count` cases; how many were accepted and refused.

    Raises:
        AssertionError: a case failed; the smallest one that was found.
    """
    seen: Counter[str] = Counter()
    columns = (
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"{steps} steps" if steps else "building", total=count)

        @seed(number)
        @given(cases(names))
        @settings(CALM, max_examples=count)
        def every_case_ends_well(case: tuple[str, list[Mutation]]) -> None:
            name, changes = case
            with tempfile.TemporaryDirectory() as folder:
                found = outcome(name, changes, Path(folder) / "run", steps)
            bar.advance(task)
            assert not found.fault, f"{name} {changes}: {found.fault}"
            seen["accepted" if found.accepted else "refused"] += 1

        every_case_ends_well()
    return seen


def main() -> int:
    """Print what came of the cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", type=int, default=5000, help="cases that are parsed and built (5000)")
    parser.add_argument("--steps", type=int, default=200, help="cases that take two steps besides (200)")
    parser.add_argument("--seed", type=int, default=0, help="other cases (0)")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="which recipes are spoiled")
    args = parser.parse_args()
    set_library_verbosity(False)
    names = tuple(args.recipes.split(","))
    for count, steps in ((args.configs, 0), (args.steps, 2)):
        begin = time.perf_counter()
        try:
            seen = tried(count, steps, names, args.seed) if count else Counter()
        except AssertionError as err:
            console.print(f"failed: {err}", markup=False)
            return 1
        seconds = time.perf_counter() - begin
        what = f"with {steps} steps" if steps else "built"
        assert not count or 0.05 < seen["accepted"] / sum(seen.values()) < 0.95, "nearly all end alike"
        console.print(f"{what}: {seen['accepted']} accepted, {seen['refused']} refused, {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
