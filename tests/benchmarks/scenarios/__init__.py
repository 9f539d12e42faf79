"""What can be measured."""

from tests.benchmarks.scenarios.chunks import Chunks
from tests.benchmarks.scenarios.requests import Requests
from tests.benchmarks.scenarios.stalled import Stalled
from tests.benchmarks.scenarios.unknown import Unknown
from tests.benchmarks.scenarios.uploads import Uploads
from tests.benchmarks.scenarios.vanish import Vanish

SCENARIOS = {
    scenario.name: scenario
    for scenario in (Chunks(), Unknown(), Uploads(), Requests(), Stalled(), Vanish())
}
