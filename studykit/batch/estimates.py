"""What a batch will take, as a table and as a line of text. Torch-free.

The column `there` counts runs and trials for which nothing is computed: they are on disk, or an earlier cell of the
batch trains them.
"""

from collections.abc import Iterable, Mapping

from rich.table import Table

from studykit.results.environment import processes_wanted

Estimate = Mapping[str, float]
"""The fields of `studykit.study.estimate.Estimate`, by name."""

_AT_A_TIME = ("memory_bytes", "checkpoint_bytes")
_COLUMNS = (
    "runs",
    "trials",
    "there",
    "tokens seen",
    "teacher tokens",
    "cached before",
    "cache",
    "disk",
    "memory",
    "time",
)


def estimate_table(named: Mapping[str, Estimate]) -> Table:
    """Return a table with a row for each cell and the sum in the last one."""
    table = Table("cell", show_footer=False)
    for column in _COLUMNS:
        table.add_column(column.replace(" ", "\n"), justify="right", no_wrap=True)
    for name, estimate in named.items():
        table.add_row(name, *_texts(estimate))
    table.add_section()
    table.add_row("all", *_texts(add(named.values())))
    return table


def estimate_line(estimates: Iterable[Estimate], jobs: int) -> str:
    """Return the sum in one line."""
    each = list(estimates)
    total = add(each)
    seconds = max(total["seconds"] / jobs, max(estimate["seconds"] for estimate in each))
    _, _, _, seen, teacher, _, cache, disk, memory, _ = _texts(total)
    runs, trials, there = (int(total[name]) for name in ("runs", "trials", "runs_there"))
    tuning = f" and {counted(trials, 'trial')} ({_duration(total['tuning_s'] / jobs)})" if trials else ""
    if further := int(total["further_trials"]):
        tuning += f", and at most {further:,} more where a grid is widened ({_duration(total['further_s'] / jobs)}),"
    known = f", {there:,} more {'is' if there == 1 else 'are'} done or shared" if there else ""
    return (
        f"{counted(len(each), 'cell')} will take about {_duration(seconds)}, {memory} of memory"
        f"{' each' if jobs > 1 else ''}, {disk} of disk: {counted(runs, 'run')}{tuning} to train{known}; {seen} "
        f"tokens trained on, {teacher} through the teacher, {cache} of cache{note_on_processes()}"
    )


def done_line(cells: int, runs: int, trials: int, seconds: float) -> str:
    """Return what a batch that is done has on disk, and what it took.

    >>> done_line(25, 250, 120, 6840.0)
    '25 cells are done: 250 runs and 120 trials on disk, 1.9 h of training and scoring'
    """
    tuning = f" and {counted(trials, 'trial')}" if trials else ""
    is_done = f"{counted(cells, 'cell')} {'is' if cells == 1 else 'are'} done"
    return f"{is_done}: {counted(runs, 'run')}{tuning} on disk, {_duration(seconds)} of training and scoring"


def note_on_processes() -> str:
    """Return what estimates of one process say of several that compute a run; empty where one does."""
    count = processes_wanted()
    if count == 1:
        return ""
    return (
        f"; this is for runs by one process: {count} take at best 1/{count} of the time, "
        f"and together at most {count} times the memory"
    )


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "run"), counted(1200, "run"), counted(0, "trial")
    ('1 run', '1,200 runs', '0 trials')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def add(estimates: Iterable[Estimate]) -> dict[str, float]:
    """Return what cells take together: the larger memory, the sum of all else."""
    total: dict[str, float] = {}
    for estimate in estimates:
        for name, value in estimate.items():
            total[name] = max(total.get(name, 0), value) if name in _AT_A_TIME else total.get(name, 0) + value
    return total


def _texts(estimate: Estimate) -> list[str]:
    disk = sum(estimate[name] for name in ("cache_bytes", "weights_bytes", "checkpoint_bytes"))
    runs = [f"{estimate[name]:,.0f}" for name in ("runs", "trials", "runs_there")]
    counts = runs + [_count(estimate[name]) for name in ("student_tokens", "teacher_tokens", "cached_tokens")]
    sizes = [_size(amount) for amount in (estimate["cache_bytes"], disk, estimate["memory_bytes"])]
    return [*counts, *sizes, _duration(estimate["seconds"])]


def _count(tokens: float) -> str:
    """Return a number in thousands or millions.

    >>> _count(950), _count(64_000), _count(4_100_000)
    ('950', '64 k', '4.1 M')
    """
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= unit:
            return f"{tokens / unit:.1f} {letter}" if tokens < 10 * unit else f"{tokens / unit:.0f} {letter}"
    return f"{tokens:.0f}"


def _size(amount: float) -> str:
    """Return bytes in a unit of their size.

    >>> _size(0), _size(12_300_000), _size(2**31)
    ('0 MB', '12 MB', '2.1 GB')
    """
    return f"{amount / 1e6:.0f} MB" if amount < 1e9 else f"{amount / 1e9:.1f} GB"


def _duration(seconds: float) -> str:
    """Return seconds, minutes or hours.

    >>> _duration(50), _duration(600), _duration(9000)
    ('50 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
