"""What a benchmark is made of: servers, scenarios, and the figures that come out."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.benchmarks.process import ServerProcess

Figures: TypeAlias = Mapping[str, float]
"""What was measured, by name; the name ends with the unit."""

Start: TypeAlias = "Callable[[], AbstractContextManager[ServerProcess]]"
"""Starts a new process of the server under test, for the length of a block."""


@dataclass(frozen=True)
class Server:
    """A server as a command line.

    Attributes:
      name: As in the tables.
      argv: Run in the root of the checkout. It listens on a free port of 127.0.0.1 and prints its
        URL.
      offers: The names of the scenarios whose paths it answers.
      needs: The modules that it can't run without, beyond those of `trio_stream`.
      programs: And the programs.
    """

    name: str
    argv: tuple[str, ...]
    offers: frozenset[str]
    needs: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Those of its modules and programs that are not installed."""
        return [
            *(name for name in self.needs if not find_spec(name)),
            *(name for name in self.programs if not find_program(name)),
        ]


@dataclass(frozen=True)
class Target:
    """How much a figure of `trio_stream` may be, or its ratio to that of another server.

    Attributes:
      row: Which row of the table.
      figure: Which of its figures.
      limit: The largest median that is good.
      is_ratio: Whether `limit` is for the ratio.
      to: The other server, if that is not the baseline.
    """

    row: str
    figure: str
    limit: float
    is_ratio: bool = False
    to: str | None = None


class Scenario(ABC):
    """Something to measure on each server that offers it. The docstring's first line is its title.

    Attributes:
      name: As on the command line.
      rounds: How often each server is measured, if the command line does not say.
      only_when_named: Whether the command line must name it.
      cost: The figure that is compared with the baseline's.
      baseline: The name of the server that the others are compared with.
    """

    name: ClassVar[str]
    rounds: ClassVar[int] = 5
    only_when_named: ClassVar[bool] = False
    cost: ClassVar[str | None] = None
    baseline: ClassVar[str | None] = None

    @property
    def title(self) -> str:
        """What it is about, in a line."""
        return (self.__doc__ or "").partition("\n")[0]

    @property
    def drawn(self) -> tuple[str, ...]:
        """The figures in the picture; the less, the better."""
        return () if self.cost is None else (self.cost,)

    @property
    def targets(self) -> tuple[Target, ...]:
        """What `trio_stream` has to reach."""
        return ()

    @property
    def time_limit(self) -> float:
        """For one round of one server, in seconds."""
        return 120

    def prepared(self) -> AbstractContextManager[None]:
        """Provide what all rounds need, for as long as they go on."""
        return nullcontext()

    @abstractmethod
    def measure(self, start: Start) -> Mapping[str, Figures]:
        """Measure one round: the figures of each row."""


@dataclass(frozen=True)
class Sample:
    """The figures of one row in one round."""

    server: str
    round: int
    row: str
    figures: Figures


def find_program(name: str) -> str | None:
    """Where a program is, also one that is for the administrator."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
