"""Models by name: folder or hub id, sha256 of the files, and tokenizer.

    models = Models("results")                      # the folder whose runs can be named as models
    teacher = models.find("lexicon/teacher-a")
    teacher.path, teacher.sha256, teacher.tokenizer

A name is looked up in this order: an embedded model (`lexicon/teacher-a`), the id of a finished run under the results
folder, a local folder, and finally the hub. A folder of LoRA adapters, as peft saves them, names a model too: its base,
which its `adapter_config.json` names in one of these ways, with the adapters merged into the weights.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import transformers

from studykit.chat import find_turn_ends
from studykit.errors import InputError, one_line, unknown
from studykit.models.adapters import adapters_hash, base_of, is_adapter_folder
from studykit.models.file_hashes import file_sha256
from studykit.results import damaged_files, is_done, is_run_id

EMBEDDED = Path(__file__).parent / "embedded"

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_OF_TOKENIZER = ("tokenizer.json", "*.jinja", "vocab.*", "merges.txt", "*.model")
_HASHED = ("*.safetensors", "*config.json", *_OF_TOKENIZER)


@dataclass(frozen=True)
class ModelRef:
    """A model that has been looked up; hash and tokenizer are read at first use, and cached.

    Attributes:
        name: as the specification gives it.
        path: a local folder, or the hub id where there is none.
        revision: branch, tag or commit on the hub; None for its default.
        base: of a folder of adapters, the model that they are merged into; it may be one of adapters itself.
    """

    name: str
    path: str
    revision: str | None = None
    base: "ModelRef | None" = None

    @property
    def weights(self) -> "ModelRef":
        """The model whose architecture and weights this is, without adapters."""
        return self if self.base is None else self.base.weights

    @property
    def lasting_name(self) -> str:
        """The name under which adapters of this model find it again, from any folder."""
        folder = Path(self.path)
        return str(folder.resolve()) if folder.is_dir() and not folder.is_relative_to(EMBEDDED) else self.name

    @cached_property
    def sha256(self) -> str:
        """The sha256 over a folder's weights, configuration, tokenizer and chat template; of a model on the hub, the
        sha256 of its commit; of adapters, that of their base model, of themselves, and of their tokenizer.

        Raises:
            InputError: a folder without safetensors weights, or no such model on the hub.
        """
        folder = Path(self.path)
        if not folder.is_dir():
            return hashlib.sha256(f"{self.name}@{_commit(self.name, self.revision)}".encode()).hexdigest()
        if self.base is not None:
            parts = (self.base.sha256, adapters_hash(folder), _hash_files(_files(folder, _OF_TOKENIZER)))
            return hashlib.sha256(" ".join(parts).encode()).hexdigest()
        files = _files(folder, _HASHED)
        if not any(f.suffix == ".safetensors" for f in files):
            raise InputError(f"{folder} holds no *.safetensors weights: is it a model saved with save_pretrained?")
        return _hash_files(files)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer; adapters without one have their base model's. Without a padding token, a token that
        ends an answer pads.

        Raises:
            InputError: there is no tokenizer, or no fast one, or none with a token that could end an answer.
        """
        if self.base is not None and not _files(Path(self.path), _OF_TOKENIZER):
            return self.base.tokenizer
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self.path, revision=self.revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise InputError(f"cannot load the tokenizer of {self.name!r}: {_reason(self.path, error)}") from None
        if not tokenizer.is_fast:
            raise InputError(f"the tokenizer of {self.name!r} has no fast version, which character offsets need")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(find_turn_ends(tokenizer).last)
        return tokenizer


class Models:
    """Looks up models by name, each once: two look-ups of a name give the same reference, with one tokenizer.

    Args:
        root: the results folder, whose finished runs can be named as models.
    """

    def __init__(self, root: str | Path = "results"):
        self._root = Path(root)
        self._found: dict[tuple[str, str | None], ModelRef] = {}

    def find(self, name: str, revision: str | None = None) -> ModelRef:
        """Return the model of that name; a name of no other kind is a hub id.

        Raises:
            InputError: an empty name, an embedded model that does not exist, a run that does not exist, is not finished
                or whose weights are damaged, or adapters whose base model is missing or that cannot be merged.
        """
        if not name.strip():
            raise InputError(
                "the name of a model is empty: give an embedded model such as 'lexicon/teacher-a', the id of a "
                "finished run, a folder or a hub id"
            )
        return self._find(name, revision, ())

    def _find(self, name: str, revision: str | None, adapters: tuple[str, ...]) -> ModelRef:
        """Look a model up; `adapters` are the folders on the way to it, from one base model to the next."""
        if (name, revision) not in self._found:
            try:
                path = self._path(name)
            except (OSError, RuntimeError) as error:  # a name that is too long, or no such user in "~user"
                raise InputError(f"model {name!r:.80} cannot be looked up ({error})") from None
            base = self._base(Path(path), (*adapters, path)) if is_adapter_folder(Path(path)) else None
            self._found[name, revision] = ModelRef(name, path, revision, base)
        return self._found[name, revision]

    def _base(self, folder: Path, adapters: tuple[str, ...]) -> ModelRef:
        name, revision = base_of(folder)
        what = f"the base model {name!r} of the adapters in {folder}"
        fix = "bring it back, or change base_model_name_or_path in adapter_config.json"
        try:
            path = self._path(name)
            if path in adapters:
                raise InputError("it is those adapters themselves")
            if not Path(path).is_dir() and not _HUB_ID.fullmatch(path):
                raise InputError("no such folder")
            base = self._find(name, revision, adapters)
            base.sha256  # noqa: B018  a model on the hub is looked up here
        except InputError as error:
            raise InputError(f"{what} cannot be used ({error}): {fix}") from None
        return base

    def _path(self, name: str) -> str:
        family, _, short = name.partition("/")
        if family in {p.name for p in EMBEDDED.iterdir()} and not Path(name).exists():
            known = sorted(p.name for p in (EMBEDDED / family).iterdir())
            if short not in known:
                raise unknown("embedded model", name, [f"{family}/{k}" for k in known])
            return str(EMBEDDED / family / short)
        if is_run_id(name):
            return str(self._run_model(name))
        return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name

    def _run_model(self, run_id: str) -> Path:
        for folder in sorted(self._root.glob(f"*/runs/{run_id}/model")):
            if is_done(folder.parent):
                for damage in damaged_files(folder.parent, ("model/",)):
                    raise InputError(str(damage))
                return folder
        if any(is_done(folder) for folder in self._root.glob(f"*/runs/{run_id}")):
            raise InputError(
                f"the weights of run {run_id} were not kept: remove its folder, and train it again with keep='bf16' or "
                "keep='full'"
            )
        raise InputError(f"run {run_id} has no saved model under {self._root}: run it first, or name a model folder")


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})


def _hash_files(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()


def _commit(name: str, revision: str | None) -> str:
    """Return the commit of a model on the hub.

    Raises:
        InputError: no such model, or no way to reach it.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load model {name!r}: {_reason(name, error)}") from None
    # Only there does transformers leave the commit that it has loaded; asking the hub would need a network.
    return config._commit_hash or revision or "main"


def _reason(path: str, error: Exception) -> str:
    """Return why transformers finds no model or tokenizer, in one line."""
    if not Path(path).is_dir() and not _HUB_ID.fullmatch(path):
        return "there is no such folder"
    if Path(path).is_dir() and not _files(Path(path), _OF_TOKENIZER):
        return "the folder holds none: save it there with tokenizer.save_pretrained"
    first = str(error).splitlines()[0].strip()
    return one_line(error) if first.endswith(":") else first
