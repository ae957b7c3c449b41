"""Several transfers at once; the first that fails ends the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from envbuild.registry.transport import Transport

AT_ONCE = 4
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def each(transport: Transport, items: Sequence[_In], work: Callable[[Transport, _In], _Out]) -> list[_Out]:
    """What ``work`` makes of each item, in their order, several at once.

    ``work`` is given a transport of this group's own. The first error, or an interrupt, cuts what the others
    have under way, and is what comes out here: not what the cutting made of them."""
    if not items:
        return []
    group = transport.fork()

    def run(item: _In) -> _Out:
        group.check()
        return work(group, item)

    try:
        with ThreadPoolExecutor(min(AT_ONCE, len(items)), thread_name_prefix="registry") as pool:
            jobs = [pool.submit(run, item) for item in items]
            try:
                done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
                # Nothing has been cut yet, so what failed by now failed by itself.
                failed = [job for job in jobs if job in done and job.exception() is not None]
                if failed:
                    failed[0].result()
            except BaseException:
                group.cut()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [job.result() for job in jobs]
    finally:
        group.close()
