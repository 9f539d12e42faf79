"""What can be measured."""

from tests.benchmarks.scenarios.chunks import Chunks
from tests.benchmarks.scenarios.requests import Requests
from tests.benchmarks.scenarios.stalled import Stalled
from tests.benchmarks.scenarios.vanish import Vanish

SCENARIOS = {scenario.name: scenario for scenario in (Chunks(), Requests(), Stalled(), Vanish())}
