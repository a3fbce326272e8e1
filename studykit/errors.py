"""The exceptions that users meet, and the suggestion that goes with a wrong name.

`InputError` carries a single line: the rule, the value received and the fix. The command
line prints that line and exits with code 2; a notebook shows it as the last line of the traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Wrong input: one line naming the fault, the value received and the fix."""


class Failure(RuntimeError):
    """A failure that other input would not avoid, such as a damaged file: one line with the fault and the fix."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for an unknown name, with the nearest known one.

    >>> print(unknown("method", "kdd", ["sft", "kd"]))
    unknown method 'kdd'; did you mean 'kd'?
    >>> print(unknown("method", "xyz", ["sft", "kd"]))
    unknown method 'xyz'; known: kd, sft
    """
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return InputError(f"unknown {kind} {name!r}; {hint}")
