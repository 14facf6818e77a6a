"""How are untrusted pixels decoded without risking this process?

In a child process that is limited in memory, time, open files and output, that can be killed at
any moment, and that is replaced after it died. A request is one line of facts (task, path,
options) as length-prefixed JSON; the answer is the same, with pixels through a shared memory file
whose size must equal the declared shape. Nothing is unpickled.

    with DecodeWorker(Limits()) as worker:
        decoded = worker.run("still", Path("image.png"), {})
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.errors import DecodeFailed, Reason
from renalkit.readers.contract import Limits
from renalkit.readers.decode_child import TASKS

PIXEL_TYPES = ("|u1", "|i1", "|b1", "<u2", "<i2", "<f4")
"""The element types a child may answer with."""

_ANSWER_BYTES = 64 << 20
_START_SECONDS = 60.0
_KEPT_BYTES = 64 << 20
"""Pixels of a frame that may stay in the shared memory until the next one takes their place."""
_KEPT_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(64 << 20)}
"""For glibc (mallopt(3)): the child keeps the memory of a frame for the next one. To give it back
and ask for it again takes half as long as decoding."""
PATIENCE = 4.0
"""How many times its processor time a decoder may take by the clock: machines do other work too."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a task gave: pixels (size 0 when the task returns facts only) and facts about them."""

    pixels: npt.NDArray[Any] = field(repr=False)
    info: dict[str, Any]


class _ChildGone(Exception):
    """The child died, went silent or spoke nonsense; the words say which."""


@dataclass(slots=True)
class DecodeWorker:
    """One persistent child process; started on first use, replaced after it died."""

    limits: Limits = field(default_factory=Limits)
    deaths: int = 0
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _memory: int = field(default=-1, repr=False)
    _ahead: dict[str, Any] | None = field(default=None, repr=False)

    def __enter__(self) -> DecodeWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the living child, None when there is none."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def run(self, task: str, path: Path, options: Mapping[str, Any]) -> Decoded:
        """Let the child do a task of `TASKS` on a file.

        options must be JSON; what they mean is up to the task.

        Raises:
            DecodeFailed: the child refused (its reason is passed on), or died, or took longer than
                `limits.worker_seconds` of processor time, or `PATIENCE` times that on the clock
                (DECODER_KILLED). This process and the worker stay usable.
        """
        request = _request(task, path, options)
        try:
            child = self._living()
            if self._ahead != request:
                child = self._idle(child)
                self._send(child, request)
            self._ahead = None
            answer = self._receive(child, time.monotonic() + PATIENCE * self.limits.worker_seconds)
            if "refused" in answer:
                raise _refusal(answer["refused"])
            return self._decoded(answer)
        except _ChildGone as gone:
            self.deaths += 1
            raise DecodeFailed(
                Reason.DECODER_KILLED,
                f"decoder stopped: {gone}",
                expected=f"pixels within {self.limits.worker_seconds:g} s "
                f"and {self.limits.worker_bytes >> 20} MiB",
                remedy="the file is damaged or far larger than usual; export it again",
            ) from None
        except BaseException as error:
            # Interrupted between question and answer (Ctrl-C): the pipe is no longer in step.
            if not isinstance(error, DecodeFailed):
                self.close()
            raise

    def begin(self, task: str, path: Path, options: Mapping[str, Any]) -> None:
        """Let the child do at once what `run` will probably be asked next, while we do other work.

        Pixels of the last `run` stay as they are. Errors are those of that next `run`; when it asks
        for something else, this was in vain.
        """
        request = _request(task, path, options)
        if self._ahead is not None or self.pid is None:
            return
        try:
            self._send(self._living(), request)
            self._ahead = request
        except _ChildGone:
            self.close()
        except BaseException:
            self.close()  # interrupted in the middle of a request: the pipe is no longer in step
            raise

    def close(self) -> None:
        """End the child and free the shared memory; a later `run` starts a new child."""
        child, self._child, self._ahead = self._child, None, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _living(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        self._memory = _memory_file()
        limits = self.limits
        # Numeric libraries reserve address space per thread; one thread keeps RLIMIT_AS honest.
        environment = os.environ | {
            name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        }
        environment |= _KEPT_MEMORY
        # -P keeps the current folder out of the import path: it may be the untrusted data folder.
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "renalkit.readers.decode_child"),
                *(str(self._memory), str(limits.worker_bytes), str(limits.decoded_bytes)),
                str(max(1, round(limits.worker_seconds))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._memory,),
            env=environment,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the parent, which ends the child itself
        )
        self._receive(self._child, time.monotonic() + _START_SECONDS)
        return self._child

    def _idle(self, child: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """A child that does nothing: this one after what it was given in vain, or a new one."""
        if self._ahead is None:
            return child
        try:
            self._receive(child, time.monotonic() + PATIENCE * self.limits.worker_seconds)
        except _ChildGone:
            return self._living()
        self._ahead = None
        return child

    def _send(self, child: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
        body = json.dumps(request, allow_nan=False).encode()
        assert child.stdin is not None
        try:
            child.stdin.write(struct.pack(">I", len(body)) + body)
        except BrokenPipeError:
            raise self._gone(child) from None

    def _receive(self, child: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
        (length,) = struct.unpack(">I", self._read(child, 4, deadline))
        if length > _ANSWER_BYTES:
            self._end(child)
            raise _ChildGone(f"answer of {length} bytes")
        try:
            answer = json.loads(self._read(child, length, deadline))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self._end(child)
            raise _ChildGone("answer that is not JSON")
        return answer

    def _read(self, child: subprocess.Popen[bytes], count: int, deadline: float) -> bytes:
        assert child.stdout is not None
        handle = child.stdout.fileno()
        data = bytearray()
        while len(data) < count:
            ready, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                child.kill()
                child.wait()
                raise _ChildGone("no answer in time")
            piece = os.read(handle, min(count - len(data), 1 << 20))
            if not piece:
                raise self._gone(child)
            data += piece
        return bytes(data)

    def _gone(self, child: subprocess.Popen[bytes]) -> _ChildGone:
        self._end(child)
        code = child.returncode
        if code is not None and code < 0:
            return _ChildGone(f"ended by {signal.Signals(-code).name}")
        return _ChildGone(f"ended with code {code}")

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        """Let a child that already ended keep its own exit code; kill one that did not."""
        try:
            child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _decoded(self, answer: dict[str, Any]) -> Decoded:
        shape, dtype = tuple(int(n) for n in answer["shape"]), str(answer["dtype"])
        declared = prod(shape) * (np.dtype(dtype).itemsize if dtype in PIXEL_TYPES else 0)
        actual = os.fstat(self._memory).st_size
        fits = 0 <= declared <= self.limits.decoded_bytes and min(shape, default=0) >= 0
        if dtype not in PIXEL_TYPES or len(shape) > 4 or not fits or declared != actual:
            self.close()
            raise _ChildGone(f"{actual} bytes of pixels for {shape} of {dtype}")
        pixels = np.empty(shape, dtype)
        view = pixels.reshape(-1).view(np.uint8).data
        offset = 0
        while offset < declared:
            count = os.preadv(self._memory, [view[offset:]], offset)
            if count <= 0:
                self.close()
                raise _ChildGone("pixels that vanished")
            offset += count
        if declared > _KEPT_BYTES:
            os.ftruncate(self._memory, 0)
        return Decoded(pixels, dict(answer["info"]))


def _request(task: str, path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    if task not in TASKS:
        raise ValueError(f"no decoding task {task!r}; there are {', '.join(TASKS)}")
    return {"task": task, "path": str(path), "options": dict(options)}


def _memory_file() -> int:
    """An anonymous file in memory, or an unlinked temporary one where there is no memfd."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("renalkit-pixels", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _refusal(words: Mapping[str, Any]) -> DecodeFailed:
    return DecodeFailed(
        Reason(str(words["reason"])),
        str(words["found"]),
        expected=str(words.get("expected", "")),
        remedy=str(words.get("remedy", "")),
    )
