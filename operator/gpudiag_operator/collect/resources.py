"""What the process needs of its surroundings for thousands of nodes: open files, and a garbage collector that waits.

One kept connection per node needs more files than the usual 1,024.
"""

import gc
import logging
import resource

log = logging.getLogger(__name__)

SPARE_FILES = 512
"""For the API server, logs, short-lived connections of ``Once`` runs beyond the global limit, and the libraries."""


_COLLECT_AFTER = (20_000, 20, 20)


def calm_garbage_collector() -> None:
    """Look for cycles less often, and never among what is loaded already.

    Polls of thousands of nodes are objects that live for a while, and the default of 700 new objects goes over all of
    them again and again: half of the CPU of a sweep over 5,000 nodes, for next to no garbage (measured by the
    benchmark ``sweep``; memory stays the same).
    """
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def raise_open_files(nodes: int = 5000) -> tuple[int, int]:
    """Raise the soft limit so that ``nodes`` kept connections fit twice (``Once`` runs use a second one), and say so.

    Returns:
        (soft limit now, soft limit before). The hard limit is never exceeded; when it is too low, a warning says so.
    """
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * nodes + SPARE_FILES
    unlimited = hard == resource.RLIM_INFINITY
    soft = wanted if unlimited else min(wanted, hard)
    if before != resource.RLIM_INFINITY and before < soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        log.info("raised the limit of open files from %d to %d", before, soft)
    else:
        soft = before
    if soft != resource.RLIM_INFINITY and soft < wanted:
        log.warning("only %d open files are allowed, %d nodes may need %d: raise the hard limit", soft, nodes, wanted)
    return soft, before
