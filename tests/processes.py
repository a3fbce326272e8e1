"""Processes that a test may kill: forked from a clean server which has imported everything already."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["studykit.study", "peft"])
MAIN = sys.modules["__main__"]


def start(function: Callable, *arguments: object) -> ForkServerProcess:
    """Start a function of a test module in a separate process, with this process's cache."""
    sys.modules["__main__"] = MAIN  # a new process imports it, and Streamlit's tests leave the dashboard there
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
