"""Seconds by turns, and bytes."""

import json
import os
import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch as th

Action = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)


def timed(function: Action, calls: int = 1, prepare: Action | None = None) -> float:
    """
    :param function: what to call
    :param calls: how often
    :param prepare: what to call before each of them, outside of the time
    :return: seconds per call
    """
    if prepare is None:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls
    seconds = 0.0
    for _ in range(calls):
        prepare()
        seconds += timed(function)
    return seconds / calls


def interleaved(
    functions: Mapping[Key, Action],
    seconds: float,
    turn: float = 0.05,
    prepare: Mapping[Key, Action] | None = None,
) -> dict[Key, list[float]]:
    """
    Call functions by turns, after a warm-up: whatever else the machine does in a round, it does to all of them.

    :param functions: by name
    :param seconds: for all rounds together; at least three are made, or one if it is 0
    :param turn: a fast function is called several times in its turn, until it has taken about as many seconds
    :param prepare: what is called before each call of a function, by its name, outside of its time
    :return: seconds per call of each function, one number per round
    """
    before = prepare or {}
    calls = {}
    for name, function in functions.items():
        warm_up = timed(function, prepare=before.get(name))
        if warm_up < turn:
            warm_up = timed(function, prepare=before.get(name))
        calls[name] = max(1, round(turn / warm_up))
    times: dict[Key, list[float]] = {name: [] for name in functions}
    shuffler, order, start = random.Random(0), list(functions), time.perf_counter()
    rounds = 3 if seconds else 1
    while len(times[order[0]]) < rounds or time.perf_counter() - start < seconds:
        shuffler.shuffle(order)  # nobody always runs after the same one
        for name in order:
            times[name].append(timed(functions[name], calls[name], before.get(name)))
    return times


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """
    :param times: of a function, one per round
    :param reference: of another one
    :return: the median of the rounds' ratios
    """
    return median(a / b for a, b in zip(times, reference, strict=True))


def peak_memory(function: Action, device: th.device | str = "cpu") -> int:
    """
    :param function: what to call
    :param device: where its tensors are
    :return: bytes of all tensors that were alive at once, beyond those from before
    """
    if th.device(device).type == "cuda":
        before = th.cuda.memory_allocated(device)
        th.cuda.reset_peak_memory_stats(device)
        function()
        return th.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports its starts and stops otherwise
    with th.profiler.profile(activities=[th.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    return int(np.cumsum([0, *(event["args"]["Bytes"] for event in events)]).max())


def peak_numpy_memory(function: Action) -> int:
    """
    :param function: what to call
    :return: bytes of all NumPy arrays (and Python objects) that were alive at once, beyond those from before
    """
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def free_memory(device: th.device | str) -> int:
    """
    :param device: of a measurement
    :return: bytes
    """
    if th.device(device).type == "cuda":
        return th.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
