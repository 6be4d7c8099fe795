"""How long things take beside each other, in one run on one machine."""

import statistics
import time
from collections.abc import Callable, Mapping

from torch.utils.benchmark import timer

from fewbits.errors import FewbitsError

WARM_UP = 2  #: first rounds that do not count


def seconds_on(device: str) -> float:
    """Return a time in seconds that only differences have a meaning of, for work that takes minutes.

    On "cpu" it is the processor time of this process, all threads added up: what else runs on the machine does not
    count. On "cuda" it is the time of a clock on the wall.
    """
    return time.process_time() if device == "cpu" else time.monotonic()


def take_turns(forms: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median time of each form in seconds, CUDA waited for.

    All forms of a round run one after another, every other round backwards, so that whatever else the machine does
    falls on all of them; two rounds come first that do not count. What a form returns is freed before the next starts.

    Raises:
        FewbitsError: If ``rounds`` is below 1.
    """
    if rounds < 1:
        raise FewbitsError(f"{rounds} rounds measure nothing; one or more are needed, an odd number is best.")
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(WARM_UP + rounds):
        for name in list(forms)[:: -1 if turn % 2 else 1]:
            start = timer()
            forms[name]()
            times[name].append(timer() - start)
    return {name: statistics.median(taken[WARM_UP:]) for name, taken in times.items()}
