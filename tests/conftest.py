"""What many tests share: a separate cache, no network, one thread, the smallest models and data that will do."""

import gc
import json
import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch: threads that wait for each other do not compute meanwhile

import processes
import pytest

collect_ignore_glob = ["*conftest.py"]  # or --doctest-modules imports all of them under one name
MAIN = sys.modules["__main__"]
WORDS = ("cat", "dog", "banana", "river", "stone", "apple", "window", "garden", "letter", "yellow")


def pytest_configure(config):
    trackio = tempfile.TemporaryDirectory(prefix="trackio-", ignore_cleanup_errors=True)
    config.add_cleanup(trackio.cleanup)
    os.environ["TRACKIO_DIR"] = trackio.name  # trackio reads it when it is imported
    # peft asks a transformers model for a property that transformers 5 has renamed.
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def pytest_collection_finish():
    freeze()


def pytest_runtest_teardown():
    sys.modules["__main__"] = MAIN  # Streamlit leaves the page it ran there, which processes started later would run


def pytest_runtest_logreport(report):
    if report.duration > LONG_S or len(sys.modules) > FROZEN[-1] + 100:
        freeze()


LONG_S = 0.5
"""A test that takes longer has often read what is remembered from then on, such as a pool of examples."""


FROZEN = [0]  # modules at each freeze


def freeze():
    """Keep what was imported out of every later garbage collection: each end of a training asks for one."""
    gc.collect()
    gc.freeze()
    FROZEN.append(len(sys.modules))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep caches of tests out of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["STUDYKIT_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def one_thread():
    """Compute on one thread: sums in one order, and no fight over cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def start():
    """Start a function in a separate process that `join` waits for."""
    return processes.start


@pytest.fixture
def join():
    """Wait for a process and return its exit code; where it was killed, minus the signal's number."""
    return processes.join


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """Give one test a cache that nothing is in yet."""
    monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tokenizer(one_thread):
    """Return the tokenizer of the lexicon models, not to be changed."""
    from studykit.models.names import Models

    return Models().find("lexicon/tokenizer").tokenizer


@pytest.fixture(scope="session")
def tiny_config(one_thread):
    """Return a Llama of 10 thousand parameters over the lexicon's vocabulary."""
    from tools.embed import shape

    return shape(16, 2, 2)


@pytest.fixture(scope="session")
def tiny_model(tiny_config):
    """Make a random model: the same seed gives the same weights; a large `spread` gives sharp predictions."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(seed=0, spread=1.0, **changes):
        torch.manual_seed(seed)
        fields = {**tiny_config, **changes}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(spread)
        return model

    return make


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory, tiny_model, tokenizer):
    """Save a random teacher with its tokenizer, as a user's local model lies on disk."""
    folder = tmp_path_factory.mktemp("teacher")
    tiny_model(seed=7, spread=30.0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def examples():
    """Return 40 conversations of different lengths, in the lexicon's words."""
    from studykit.sources import Example

    made = []
    for number in range(40):
        word = WORDS[number % 10][: 3 + number % 4] + "abcdefgh"[number % 8]
        messages = (
            {"role": "user", "content": "Pronounce " + " ".join(word)},
            {"role": "assistant", "content": " ".join(["K", "AE", "T", "D", "AO", "G", "R"][: 1 + number % 7])},
        )
        made.append(Example(f"word-{number}", messages, "words" if number % 4 else "rare", "human", "train"))
    return made


@pytest.fixture(scope="session")
def encoded(examples, tokenizer):
    """Return the shared conversations as token ids."""
    from studykit.chat import encode

    return encode(examples, tokenizer, 64)


@pytest.fixture(scope="session")
def data_file(tmp_path_factory, examples):
    """Write those conversations as a user's JSONL file."""
    file = tmp_path_factory.mktemp("data") / "words.jsonl"
    lines = [{"id": e.id, "source": e.source, "messages": list(e.messages)} for e in examples]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def stage(data_file):
    """Make the plain data of one short stage."""

    def make(method="sft", **changes):
        data = {"source": "jsonl", "options": {"path": str(data_file)}, "budget": {"examples": 24}}
        plain = {"data": data, "method": method, "steps": 6, "batch_size": 4, "learning_rate": 0.01, "max_length": 64}
        return plain | changes

    return make


@pytest.fixture(scope="session")
def plain_spec(stage, tiny_config, teacher_folder):
    """Make the plain data of a run of one short stage with a tiny random student."""

    def make(*stages, teacher=True, top_k=None, lora=None, **changes):
        plain = {"student": {"name": "lexicon/tokenizer", "random_config": tiny_config}, "stages": list(stages)}
        if lora is not None:
            plain["student"]["lora"] = lora
        if teacher:
            plain["teacher"] = {"name": str(teacher_folder)} | ({} if top_k is None else {"top_k": top_k})
        plain["stages"] = plain["stages"] or [stage()]
        return plain | changes

    return make
