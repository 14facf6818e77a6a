"""How do several devices of one machine train one fold together?

Each device has a process, its rank; all ranks go through the same steps with the same weights.

Batches: a step's images are those of a training on one device, cut into one share per rank
(`renalkit.learn.data.step_share`). The ranks exchange network outputs and truth, so that each
computes the loss of the WHOLE batch, and sum the gradients that flow back through their own
images: for any loss, with unequal shares and with unknown truth, that is the gradient of the batch.

Batch normalisation is per device unless `TrainOptions.batchnorm` is 'synced': each rank normalises
with its own share, and the running statistics kept are those of rank 0 (all ranks take them after
each step). Dropout is drawn per rank. With either, a network therefore differs from that of
another number of devices; without both it agrees to rounding.

Processes: ranks are forked from the caller, which waits and computes nothing. Forking hands over
networks, losses and images as they are in memory: a task holds closures that cannot be written
into a message, the prepared images are shared instead of copied, and it works from the command
line, from a script and from a notebook alike (starting the same command line again, as Fabric's
'ddp' does, would repeat everything around the training, and would find the fold's folder locked).
Two things follow. A rank computes with one thread, because a forked process must not use the
thread pool of its parent. And a caller that has used CUDA cannot fork ranks that use it: train
such folds from a process of their own (`in_processes`).
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import (
    LightningEnvironment,
    find_free_network_port,
)
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from renalkit.errors import (
    ConfigError,
    Exit,
    ModelRefused,
    RenalkitError,
    StoreError,
    TrainingFailed,
)
from renalkit.learn.data import Progress, step_share
from renalkit.learn.options import TrainOptions
from renalkit.learn.outputs import Outputs, Targets
from renalkit.learn.predictor import resolve_device

log = logging.getLogger(__name__)

STOPPED = "stopped; the state is saved"
_DROPOUT = 2
"""Purpose of a generator, as in `renalkit.learn.data`, whose purposes are 0 and 1."""
_PATIENCE = timedelta(hours=2)
"""How long a rank waits for the others. A rank that died is noticed at once by the caller."""
_POLL_S = 0.5
_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
_CROSSING = {kind.__name__: kind for kind in (TrainingFailed, StoreError, ModelRefused)}
"""Errors that keep their type on the way from a rank to the caller."""


class Stop:
    """Whether somebody asked training to end. at_once: a second wish ends it without saving.

    A process that another one started hears of one wish twice: from the terminal and from there.
    """

    def __init__(self) -> None:
        self.asked = False
        self.at_once = multiprocessing.parent_process() is None


@contextmanager
def stop_requests() -> Generator[Stop]:
    """SIGINT and SIGTERM become a wish to stop after the batch; a second one stops at once.

    Outside the main thread Python cannot take signals; there the caller's handlers stay.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked and stop.at_once:
            raise KeyboardInterrupt
        if not stop.asked and stop.at_once:
            log.warning("stopping after this batch; the state will be saved")
        stop.asked = True

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Group(Protocol):
    """The devices that train a fold, as one of them sees them.

    rank: 0 is the one that validates and writes. devices: how many there are. stop: this rank's.
    """

    @property
    def rank(self) -> int: ...
    @property
    def devices(self) -> int: ...
    @property
    def stop(self) -> Stop: ...

    def fabric(self, options: TrainOptions) -> Fabric:
        """Lightning Fabric on this rank's device."""
        ...

    def network(self, net: nn.Module, options: TrainOptions) -> None:
        """Prepare a new network in place: batch normalisation, and this rank's dropout."""
        ...

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the values of rank 0, in place."""
        ...

    def join(self, outputs: Outputs, targets: Targets, step: slice) -> tuple[Outputs, Targets]:
        """Outputs and truth of the whole batch; gradients reach only this rank's part."""
        ...

    def sum_gradients(self, net: nn.Module) -> None:
        """Replace each gradient by its sum over the ranks."""
        ...

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        """Which wishes at least one rank has."""
        ...

    def first(self, find: Callable[[], Sequence[float]]) -> Sequence[float]:
        """What rank 0 finds; KeyboardInterrupt on every rank when it met one."""
        ...

    def gather(self, states: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The (CPU) tensors of every rank, in the order of ranks."""
        ...

    def in_turn(self) -> AbstractContextManager[None]:
        """A block that rank 0 leaves before the others enter it."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """One device: nothing to exchange, every method gives back what it got."""

    stop: Stop
    rank: int = 0
    devices: int = 1

    def fabric(self, options: TrainOptions) -> Fabric:
        return Fabric(
            accelerator=resolve_device(options.device).type,
            devices=1,
            precision=cast("Any", _PRECISION[options.precision]),
        )

    def network(self, net: nn.Module, options: TrainOptions) -> None:
        pass

    def same(self, tensors: Iterable[Tensor]) -> None:
        pass

    def join(self, outputs: Outputs, targets: Targets, step: slice) -> tuple[Outputs, Targets]:
        return outputs, targets

    def sum_gradients(self, net: nn.Module) -> None:
        pass

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        return wishes

    def first(self, find: Callable[[], Sequence[float]]) -> Sequence[float]:
        return find()

    def gather(self, states: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        return [states]

    def in_turn(self) -> AbstractContextManager[None]:
        return nullcontext()


class _Neighbours(LightningEnvironment):
    """Ranks of this machine, already started, whatever batch system is around them."""

    def __init__(self, rank: int, port: int) -> None:
        super().__init__()
        self._rank, self._port = rank, port

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self._port

    def local_rank(self) -> int:
        return self._rank

    def node_rank(self) -> int:
        return 0


class _Summed(DDPStrategy):
    """Fabric's processes and devices without torch's DistributedDataParallel around the network.

    That sums in buckets which it regroups after its first step, so that with three or more
    devices a resumed training would round differently. Here one sum has one order.
    """

    def setup_module(self, module: nn.Module) -> Any:
        return module


@dataclass(frozen=True, slots=True)
class Together:
    """One of several ranks. Decisions travel over the CPU: no wait for the GPU."""

    rank: int
    devices: int
    port: int
    stop: Stop

    def fabric(self, options: TrainOptions) -> Fabric:
        device = resolve_device(options.device).type
        strategy = _Summed(
            process_group_backend="cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
            timeout=_PATIENCE,
        )
        fabric = Fabric(
            accelerator=device,
            devices=self.devices,
            strategy=strategy,
            precision=cast("Any", _PRECISION[options.precision]),
            plugins=[_Neighbours(self.rank, self.port)],
        )
        fabric.launch()
        return fabric

    def network(self, net: nn.Module, options: TrainOptions) -> None:
        if options.batchnorm == "synced":
            nn.SyncBatchNorm.convert_sync_batchnorm(net)
        if self.rank:
            # Rank 0 goes on with the generator that a single device has.
            words = np.random.SeedSequence([options.seed, _DROPOUT, self.rank])
            torch.manual_seed(int(words.generate_state(1)[0]))

    @torch.no_grad()
    def same(self, tensors: Iterable[Tensor]) -> None:
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor)
        for members in kinds.values():
            flat = _flat(members)
            dist.broadcast(flat, 0)
            _unflatten(flat, members)

    def join(self, outputs: Outputs, targets: Targets, step: slice) -> tuple[Outputs, Targets]:
        n = step.stop - step.start
        share = step_share(step, self.rank, self.devices)
        rows = slice(share.start - step.start, share.stop - step.start)
        masks = outputs.mask_logits
        whole = {
            name: _join(value, rows, n)
            for name, value in outputs._asdict().items()
            if isinstance(value, Tensor)
        }
        joined = Outputs(
            None if masks is None else tuple(_join(m, rows, n) for m in masks),
            whole.pop("class_logits", None),
            **whole,
        )
        truth = Targets(
            mask=_join(targets.mask, rows, n),
            has_mask=_join(targets.has_mask.to(torch.uint8), rows, n).bool(),
            label=_join(targets.label, rows, n),
        )
        return joined, truth

    @torch.no_grad()
    def sum_gradients(self, net: nn.Module) -> None:
        # All ranks built the same graph of the same loss: they miss the same gradients, if any.
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        flat = _flat(gradients)
        dist.all_reduce(flat)
        _unflatten(flat, gradients)

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        flags = torch.tensor(wishes, dtype=torch.uint8)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in flags)

    def first(self, find: Callable[[], Sequence[float]]) -> Sequence[float]:
        found: Sequence[float] = ()
        stopped = False
        if self.rank == 0:
            try:
                found = find()
            except KeyboardInterrupt:
                stopped = True
        size = torch.tensor([-1 if stopped else len(found)])
        dist.broadcast(size, 0)
        if size < 0:
            raise KeyboardInterrupt(STOPPED)
        values = torch.full((int(size),), math.nan, dtype=torch.float64)
        if self.rank == 0:
            values = torch.tensor(found, dtype=torch.float64)
        dist.broadcast(values, 0)
        return values.tolist()

    def gather(self, states: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        everyone: list[dict[str, Tensor]] = [{} for _ in range(self.devices)]
        for name, state in states.items():
            places = [torch.empty_like(state) for _ in range(self.devices)]
            dist.all_gather(places, state)
            for theirs, place in zip(everyone, places, strict=True):
                theirs[name] = place
        return everyone

    @contextmanager
    def in_turn(self) -> Generator[None]:
        if self.rank:
            self.agree(True)
        yield
        if not self.rank:
            self.agree(True)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def _unflatten(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    pieces = flat.split([t.numel() for t in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.detach().copy_(piece.view(tensor.shape))


def _join(own: Tensor, rows: slice, n: int) -> Tensor:
    """own: (b, ...) of this rank -> (n, ...) of all, `own` itself at `rows`.

    An idle rank (no rows) computed stand-in images: they are left out, and its gradients are 0.
    """
    used = own[: rows.stop - rows.start]
    whole = own.new_zeros((n, *own.shape[1:]))
    whole[rows] = used.detach()
    # Every other rank has zeros here: the sum is the value, exactly.
    dist.all_reduce(whole)
    return torch.cat([whole[: rows.start], used, whole[rows.stop :]])


# ---- processes


def require_devices(options: TrainOptions) -> None:
    """Refuse several devices where they cannot work.

    Raises:
        ConfigError: not so many devices here, shares too small, threads, 'synced' without CUDA.
        TrainingFailed: this process has used CUDA already.
    """
    wanted = options.devices
    cuda = resolve_device(options.device).type == "cuda"
    problems: list[str] = []
    if "fork" not in multiprocessing.get_all_start_methods():
        problems.append("train.devices: more than 1 needs a system that can fork (Linux, macOS)")
    if cuda and torch.cuda.device_count() < wanted:
        problems.append(f"train.devices: {wanted}; {torch.cuda.device_count()} CUDA devices here")
    if options.batch_size < 2 * wanted:
        problems.append(
            f"train.batch_size: {options.batch_size}; {wanted} devices need at least {2 * wanted} "
            "(two images each)"
        )
    if options.threads > 1:
        problems.append(
            f"train.threads: {options.threads}; with several devices each process has one thread"
        )
    if options.batchnorm == "synced" and not cuda:
        problems.append("train.batchnorm: 'synced' needs CUDA devices")
    if problems:
        raise ConfigError(problems)
    if torch.cuda.is_initialized():
        raise TrainingFailed(
            "this process has used CUDA, so it cannot start others that use it",
            where="train.devices",
            expected="training before anything else on the GPU",
            remedy="run the same command again (finished folds are kept), or use devices = 1",
        )


class _Relay:
    """Progress of a rank as lines to the caller's process."""

    def __init__(self, channel: connection.Connection) -> None:
        self._channel = channel

    def _send(self, **values: object) -> None:
        self._channel.send_bytes(json.dumps(values).encode())

    def stage(self, words: str, total: int | None = None) -> None:
        self._send(kind="stage", words=words, total=total)

    def advance(self, steps: int = 1, words: str = "") -> None:
        self._send(kind="advance", steps=steps, words=words)

    def error(self, error: RenalkitError) -> None:
        self._send(
            kind="error",
            name=type(error).__name__,
            found=error.found,
            where=error.where,
            expected=error.expected,
            remedy=error.remedy,
        )


class _Silent:
    """Progress of the ranks nobody listens to."""

    def stage(self, words: str, total: int | None = None) -> None:
        pass

    def advance(self, steps: int = 1, words: str = "") -> None:
        pass


Work = Callable[[int, Progress, Stop], None]
"""What a process does: (its number, where to tell progress, the wish to stop)."""


def train_together(
    options: TrainOptions, work: Callable[[Group, Progress], None], progress: Progress
) -> None:
    """Do `work` on every device at once; return when all ranks ended well.

    Args:
        options: `devices` and `device`; already passed `require_devices`.
        work: called in each rank's process with its group.
        progress: told, in this process, what rank 0 tells.

    Raises:
        see `in_processes`.
    """
    port = find_free_network_port()

    def rank_work(rank: int, told: Progress, stop: Stop) -> None:
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        if rank:
            logging.disable(logging.WARNING)  # rank 0 says the same
        if sys.platform == "linux":
            # All ranks are on this machine; its name may lead to an address that does not.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        group = Together(rank, options.devices, port, stop)
        work(group, told)
        group.agree(True)  # nobody leaves while another still needs its connection
        dist.destroy_process_group()

    in_processes(options.devices, rank_work, progress)


def in_processes(count: int, work: Work, progress: Progress) -> None:
    """Do `work` in `count` forked processes and wait for them.

    A wish to stop (SIGINT, SIGTERM) is passed on; a second one kills them. None outlives this
    process, however it ends. When one fails, all are ended.

    Args:
        count: processes, numbered from 0.
        work: what each does, with one torch thread.
        progress: told, in this process, what number 0 tells.

    Raises:
        TrainingFailed, StoreError, ModelRefused: raised by `work`, or (TrainingFailed) any other
            error of ours, or a process died.
        KeyboardInterrupt: `work` was interrupted.
    """
    context = multiprocessing.get_context("fork")
    with stop_requests() as stop:
        alive, held = os.pipe()
        channels = [context.Pipe(duplex=False) for _ in range(count)]

        def main(number: int) -> None:
            os.close(held)
            _child(number, work, (channels[number][1], alive, stop))

        processes = [context.Process(target=main, args=(n,)) for n in range(count)]
        at_once = stop.at_once
        try:
            stop.at_once = False  # as the processes are to find it
            with warnings.catch_warnings():
                # Python warns of forking beside threads; see the module's words on threads.
                warnings.simplefilter("ignore", DeprecationWarning)
                for process in processes:
                    process.start()
            stop.at_once = at_once
            _watch(processes, [reader for reader, _ in channels], progress, stop)
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()
            os.close(held)
            os.close(alive)
            for ends in channels:
                for end in ends:
                    end.close()


def _child(number: int, work: Work, wires: tuple[connection.Connection, int, Stop]) -> None:
    """Life of a forked process; its exit status is 0, 130 when interrupted, or an error's."""
    channel, alive, stop = wires

    def follow() -> None:
        os.read(alive, 1)  # returns when the last holder of the other end, the caller, is gone
        os._exit(Exit.INTERNAL)

    threading.Thread(target=follow, daemon=True).start()
    # A thread pool does not survive a fork: using the caller's would wait forever.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    relay = _Relay(channel)
    try:
        work(number, relay if number == 0 else _Silent(), stop)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except RenalkitError as error:
        relay.error(error)
        # The others wait for this one: leaving would make each fail with words of its own.
        threading.Event().wait()


def _watch(
    processes: Sequence[ForkProcess],
    readers: Sequence[connection.Connection],
    progress: Progress,
    stop: Stop,
) -> None:
    """Pass on progress and wishes until all processes ended well; raise when one did not."""
    told_s = -math.inf
    while True:
        running = [p for p in processes if p.exitcode is None]
        if stop.asked and time.monotonic() - told_s > _POLL_S:
            # Again and again: a process that is just being forked loses its first signals.
            told_s = time.monotonic()
            for process in running:
                process.terminate()
        connection.wait([*readers, *(p.sentinel for p in running)], _POLL_S)
        for reader in readers:
            while reader.poll():
                _hear(json.loads(reader.recv_bytes()), progress)
        codes = [p.exitcode for p in processes]
        if _broken(codes):
            # One that was killed makes the others fail too: let it be seen, and name it.
            connection.wait([p.sentinel for p in running], _POLL_S)
            failed = _broken([p.exitcode for p in processes])
            number, code = min(failed.items(), key=lambda item: item[1])
            raise TrainingFailed(
                f"its process ended with status {code}",
                where=f"device {number}",
                expected="status 0",
                remedy="look at the words above (-9: killed, often for want of memory), then run "
                "the same command again to resume",
            )
        if not running:
            if any(codes):
                raise KeyboardInterrupt(STOPPED)
            return


def _broken(codes: Sequence[int | None]) -> dict[int, int]:
    """Statuses that mean neither running, done nor interrupted, by process."""
    return {n: c for n, c in enumerate(codes) if c not in (None, 0, Exit.INTERRUPTED)}


def _hear(said: dict[str, Any], progress: Progress) -> None:
    kind = said.pop("kind")
    if kind == "stage":
        progress.stage(said["words"], said["total"])
    elif kind == "advance":
        progress.advance(said["steps"], said["words"])
    else:
        raise _CROSSING.get(said.pop("name"), TrainingFailed)(said.pop("found"), **said)
