"""Processes that a test may kill: forked from a clean server which has imported everything already."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["studykit.study", "peft"])


def start(function: Callable, *arguments: object) -> ForkServerProcess:
    """Start a function of a test module in a separate process, with this process's cache."""
    process = CONTEXT.Process(target=with_cache, args=(os.environ["STUDYKIT_CACHE"], function, *arguments))
    process.start()
    return process


def with_cache(folder: str, function: Callable, *arguments: object) -> None:
    os.environ["STUDYKIT_CACHE"] = folder
    function(*arguments)


def join(process: ForkServerProcess) -> int:
    """Return the exit code; where a process was killed, minus the signal's number."""
    process.join(300)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode
