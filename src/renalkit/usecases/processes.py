"""How does work that falls apart into many pieces use all cores, and leave nothing behind?

In processes of our own, started fresh: none is left when the work ends, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from renalkit.errors import Exit, StoreError


@contextmanager
def processes(
    work: str, count: int, begin: Callable[..., None], *given: Any
) -> Generator[ProcessPoolExecutor]:
    """Processes of our own; none is left when the block ends, however it ends.

    Args:
        work: what they do, as in "a process that makes patients".
        begin: called with `given` in each process before its first piece.

    Raises:
        StoreError: a process was killed.
    """
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, spawn, begin, given)
    try:
        yield pool
        pool.shutdown()
    except BrokenProcessPool as error:
        raise StoreError(
            f"a process that {work} was killed",
            where="processes",
            remedy="free memory or use fewer --workers; the same command goes on",
        ) from error
    finally:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
            child.join()
        # Waited for: the thread behind a pool must not end while Python closes it on its way out.
        pool.shutdown(cancel_futures=True)


@contextmanager
def interrupts_held() -> Generator[None]:
    """Ctrl-C waits until the block is done; processes started in it never see it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def one_thread_each() -> None:
    """One thread per process, and an end when the parent was killed."""
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(Exit.INTERNAL)
