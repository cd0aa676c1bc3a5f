"""What the process needs of its surroundings for thousands of nodes: open files, and a garbage collector that waits.

One kept connection per node needs more files than the usual 1,024.
"""

import asyncio
import gc
import logging
import resource
from typing import NoReturn

log = logging.getLogger(__name__)

SPARE_FILES = 512
"""For the API server, logs, short-lived connections of ``Once`` runs beyond the global limit, and the libraries."""


COLLECT_SECONDS = 600.0
"""Between two looks for cycles."""

_COLLECT_AFTER = (500_000, 10, 10)
"""More objects than polls of 5,000 nodes in flight (70 each); as garbage they would be some 75 MB."""


def calm_garbage_collector() -> None:
    """Look for cycles only when objects pile up, and never among what is loaded already.

    Polls in flight are living objects, and the default of 700 new ones goes over all of them again and again: half of
    the CPU of a sweep over 5,000 nodes. What it finds is nothing, since a poll leaves no cycles behind (measured: 0 in
    10,000 polls). So it waits for what no sweep reaches, and ``collect_garbage`` looks now and then.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def collect_garbage() -> NoReturn:
    """Look for cycles once every ten minutes (half a second with 5,000 nodes), for ever."""
    while True:
        await asyncio.sleep(COLLECT_SECONDS)
        log.debug("found %d objects of garbage", gc.collect())


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
