"""Fixtures that most tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness import KINDS

if TYPE_CHECKING:
    from tests.harness import Kind


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Runs a test once for each way in which the server is reached."""
    param: Kind = request.param
    return param
