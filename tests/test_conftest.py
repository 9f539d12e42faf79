"""What watches over all tests does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent


def test_error_that_the_server_logs_fails_the_test(tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(
        'import logging\ndef test_it(): logging.getLogger("trio_stream").error("oops")\n'
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(path)], cwd=CHECKOUT, check=False, timeout=60, capture_output=True, text=True
    )
    assert "1 passed, 1 error in" in done.stdout
