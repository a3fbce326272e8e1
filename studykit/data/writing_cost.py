"""The cost of answers that teachers wrote for data, and the run that it counts for: the first that trained on them.

    <cache>/synthetic/<key>.cost.json        tokens, seconds, and that run's id

Answers are often written before a run begins, by the check of a batch, and are shared by runs. The first run that has
trained on them has their cost, apart from that of its training (`synthetic_tokens`, `synthetic_prompt_tokens`,
`synthetic_s`); every other one has `cached_synthetic_tokens`, and in its manifest the run that they count for.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from studykit.files import cache_folder, json_object, locked, replacing

_RUN = "run_id"
_AMOUNTS = ("tokens", "prompt_tokens", "s")


def add(key: str, **amounts: float) -> None:
    """Add tokens, prompt_tokens and s (seconds) to what the answers under a key have cost."""
    known = _read(_file(key))
    _write(_file(key), known | {name: known.get(name, 0) + amount for name, amount in amounts.items()})


def charge(run_id: str, manifests: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return the cost that a run has of answers which teachers wrote for its data, and its manifests.

    Where the cost counts for another run, the manifests name that one.

    Args:
        run_id: of the run, which has trained.
        manifests: of its stages.
    """
    cost: dict[str, float] = {}
    first_runs: dict[str, str] = {}
    charged = []
    for manifest in map(dict, manifests):
        if "mix" in manifest:
            manifest["mix"] = [_charge_part(dict(part), run_id, first_runs, cost) for part in manifest["mix"]]
        charged.append(_charge_part(manifest, run_id, first_runs, cost))
    return cost, charged


def _charge_part(
    manifest: dict[str, Any], run_id: str, first_runs: dict[str, str], cost: dict[str, float]
) -> dict[str, Any]:
    if "written" not in manifest:
        return manifest
    key = manifest["written"]["key"]
    if key not in first_runs:
        first_runs[key], amounts = _claim(key, run_id)
        for name, amount in amounts.items():
            cost[name] = cost.get(name, 0) + amount
    counts_for = {} if first_runs[key] == run_id else {"counts_for_run": first_runs[key]}
    return manifest | {"written": manifest["written"] | counts_for}


def _claim(key: str, run_id: str) -> tuple[str, dict[str, float]]:
    """Return the run that answers count for, which is this one where there is none yet, and the amounts of this one."""
    file = _file(key)
    with locked(file.with_suffix(".lease")):
        known = _read(file)
        first = known.get(_RUN, run_id)
        if _RUN not in known:
            _write(file, known | {_RUN: run_id})
    if first != run_id:
        return first, {"cached_synthetic_tokens": known.get("tokens", 0)}
    return first, {f"synthetic_{name}": known[name] for name in _AMOUNTS if name in known}


def _file(key: str) -> Path:
    return cache_folder("synthetic") / f"{key}.cost.json"


def _read(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return json_object(json.loads(file.read_text(encoding="utf-8")))
    return {}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with replacing(file, durable=False) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
