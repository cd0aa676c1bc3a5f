"""What a benchmark is told."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Context:
    """How thoroughly to measure, and which rows are wanted."""

    quick: bool
    """Small fleets and short times: to see that everything runs, not to quote."""
    rows: frozenset[str]
    """Names of the rows that are wanted."""

    def pick(self, full: int, quick: int) -> int:
        """One of two sizes."""
        return quick if self.quick else full


def progress(text: str) -> None:
    """A line for whoever waits."""
    print(f"  {text}", file=sys.stderr, flush=True)
