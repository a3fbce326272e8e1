"""What a model's name stands for: where it lies, and the sha256 of what lies there.

A name is looked up in this order: an embedded model (`lexicon/teacher-a`), the id of a finished run under the results
folder, a local folder, and finally the hub.
"""

import hashlib
import json
import re
from pathlib import Path

from transformers import AutoConfig

from studykit.errors import InputError, unknown

EMBEDDED = Path(__file__).parent / "embedded"

_CONTENT = ("*.safetensors", "*config.json", "tokenizer.json", "*.jinja", "vocab.*", "merges.txt", "*.model")
_RUN_ID = re.compile(r"[0-9a-f]{12}")


def locate(name: str, results_root: Path) -> str:
    """Return the folder of an embedded model, a finished run or a local path; any other name is left to the hub.

    Raises:
        InputError: an embedded model nobody has heard of, or a run that is not there or not finished.
    """
    family, _, short = name.partition("/")
    if family in {p.name for p in EMBEDDED.iterdir()} and not Path(name).exists():
        known = sorted(p.name for p in (EMBEDDED / family).iterdir())
        if short not in known:
            raise unknown("embedded model", name, [f"{family}/{k}" for k in known])
        return str(EMBEDDED / family / short)
    if _RUN_ID.fullmatch(name):
        for folder in sorted(Path(results_root).glob(f"*/runs/{name}/model")):
            if _is_done(folder.parent):
                return str(folder)
        raise InputError(f"run {name} has no saved model under {results_root}: run it first, or name a model folder")
    return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name


def _is_done(run_folder: Path) -> bool:
    try:
        return json.loads((run_folder / "record.json").read_text(encoding="utf-8"))["status"] == "done"
    except (OSError, ValueError, KeyError):
        return False


def weights_hash(name: str, results_root: Path, revision: str | None = None) -> str:
    """Return the sha256 over a model folder's weights, configuration, tokenizer and chat template.

    A model on the hub is known by the commit that its name and revision stand for.

    Raises:
        InputError: a folder without safetensors weights.
    """
    folder = Path(locate(name, results_root))
    if not folder.is_dir():
        return hashlib.sha256(f"{name}@{_commit(name, revision)}".encode()).hexdigest()
    files = sorted({f for pattern in _CONTENT for f in folder.glob(pattern)})
    if not any(f.suffix == ".safetensors" for f in files):
        raise InputError(f"{folder} holds no *.safetensors weights: is it a model saved with save_pretrained?")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _commit(name: str, revision: str | None) -> str:
    """Return the commit of a model on the hub.

    Raises:
        InputError: no such model, or no way to reach it.
    """
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load model {name!r}: {str(error).splitlines()[0]}") from None
    return config._commit_hash or revision or "main"
