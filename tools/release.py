"""Write `studykit/study/released.json`, hashes of the code that run ids leave out: `python -m tools.release [NAME...]`.

Without names, what is new (`loss.hellinger`) is added, and what has other code than the release is listed: its hash is
part of the ids of runs that use it. With names, these are taken over with their code of today, which says that they
give the same numbers as before: `python -m tools.release loss.jsd`.
"""

import json
import sys

from studykit.discovery import Room
from studykit.errors import InputError, unknown
from studykit.study.released import FILE, code_hash, released

ROOMS = (
    Room("studykit.losses", kind="loss"),
    Room("studykit.methods", kind="method"),
    Room("studykit.rollouts", kind="rollout"),
    Room("studykit.samplers", kind="sampler"),
    Room("studykit.scorers", kind="scorer"),
    Room("studykit.sources", kind="source"),
)


def hashes() -> dict[str, str]:
    """Return the hashes of the code of today by kind and name."""
    return {f"{room.kind}.{name}": code_hash(room, name) for room in ROOMS for name in room.names()}


def release(names: list[str]) -> list[str]:
    """Write the file, and return the names whose code is not the released one.

    Raises:
        InputError: a name of nothing.
    """
    today, before = hashes(), released() if FILE.exists() else {}
    for name in names:
        if name not in today:
            raise unknown("thing", name, today)
    after = {name: sha256 if name in names else before.get(name, sha256) for name, sha256 in today.items()}
    FILE.write_text(json.dumps(after, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return [name for name in today if today[name] != after[name]]


if __name__ == "__main__":
    try:
        for changed in release(sys.argv[1:]):
            print(f"{changed}: not the released code; with the same numbers: python -m tools.release {changed}")
    except InputError as error:
        sys.exit(str(error))
