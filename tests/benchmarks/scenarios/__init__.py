"""What can be measured."""

from tests.benchmarks.scenarios.abort import Abort
from tests.benchmarks.scenarios.chunks import Chunks
from tests.benchmarks.scenarios.cold_file import ColdFile
from tests.benchmarks.scenarios.files import Files
from tests.benchmarks.scenarios.growth import Growth
from tests.benchmarks.scenarios.readers import Readers
from tests.benchmarks.scenarios.requests import Requests
from tests.benchmarks.scenarios.slow_files import SlowFiles
from tests.benchmarks.scenarios.small_files import SmallFiles
from tests.benchmarks.scenarios.stalled import Stalled
from tests.benchmarks.scenarios.storm import Storm
from tests.benchmarks.scenarios.tls import Tls
from tests.benchmarks.scenarios.unknown import Unknown
from tests.benchmarks.scenarios.uploads import Uploads
from tests.benchmarks.scenarios.vanish import Vanish
from tests.benchmarks.scenarios.watching import Watching

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Chunks(),
        Unknown(),
        Uploads(),
        Requests(),
        Watching(),
        Stalled(),
        Readers(),
        Vanish(),
        Abort(),
        Growth(),
        Tls(),
        Files(),
        SmallFiles(),
        SlowFiles(),
        ColdFile(),
        Storm(),
    )
}
