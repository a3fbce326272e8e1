"""The exceptions that users meet, and the suggestion that goes with a wrong name.

`InputError` carries a single line: the rule, the value received and the fix. The command
line prints that line and exits with code 2; a notebook shows it as the last line of the traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_LONGEST, _KEPT_END = 400, 160
"""Characters of a message, and of its end, which names the fix, where the middle is left out."""


class InputError(ValueError):
    """Wrong input: one short line naming the fault, the value received and the fix.

    What users write goes into messages, and may be long or hold line breaks and characters that no terminal shows.

    >>> print(InputError("unknown key 'a\\nb'"))
    unknown key 'a b'
    """

    def __init__(self, message: object = ""):
        words = " ".join(str(message).split())
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST - _KEPT_END - 5]} ... {line[-_KEPT_END:]}"
        super().__init__(line)


class Failure(RuntimeError):
    """A failure that other input would not avoid, such as a damaged file: one line with the fault and the fix."""


def shown(value: Any) -> str:
    """Return a received value for a message, at most 80 characters of it.

    >>> shown("kd"), shown(10**5000)
    ("'kd'", 'int too large to show')
    """
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):  # thousands of digits, or of lists in lists
        return f"{type(value).__name__} too large to show"


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


def one_line(error: BaseException) -> str:
    """Return the message of another library's exception as one line of at most 300 characters.

    >>> one_line(ValueError("broken:\\n - badly"))
    'broken: - badly'
    >>> one_line(KeyError())
    'KeyError'
    """
    return " ".join(str(error).split())[:300] or type(error).__name__
