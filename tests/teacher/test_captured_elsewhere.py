"""Answers that were captured elsewhere: in every layout they give what a capture here stores."""

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from completions_server import Answers
from safetensors.numpy import save_file

from studykit.errors import InputError
from studykit.spec import Endpoint
from studykit.teacher.answers import read_answers
from studykit.teacher.cached import CachedTeacher
from studykit.teacher.endpoint import EndpointTeacher
from studykit.teacher.formats import Samples, TopK
from studykit.teacher.live import LiveTeacher
from studykit.teacher.store import as_keys

V, K = 85, 6


@pytest.fixture(scope="module")
def computed(tiny_model, tokenizer, encoded):
    """Return the answers to some sequences, as a server would give them with two tokens more than are kept."""
    server = Answers(tiny_model(seed=7, spread=30.0).eval(), tokenizer)
    sequences = [encoded.ids_of(i).tolist() for i in range(12)]
    return [(ids, server.prompt_logprobs(ids, K + 2)) for ids in sequences]


def tops(listed):
    """Return ids and log-probabilities of each position, the likeliest first; nothing for the first token."""
    places = [sorted(place.items(), key=lambda pair: -pair[1]["logprob"]) if place else [] for place in listed]
    places = [place[: K + 2] for place in places]
    return [[int(t) for t, _ in place] for place in places], [[g["logprob"] for _, g in place] for place in places]


def write_lines(file, computed):
    lines = [
        dict(zip(("token_ids", "top_ids", "logprobs"), (ids, *tops(listed)), strict=True)) for ids, listed in computed
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")


def write_responses(file, computed):
    lines = [{"prompt_token_ids": ids, "prompt_logprobs": listed, "text": ""} for ids, listed in computed]
    lines[1:] = [{"object": "text_completion", "choices": [line]} for line in lines[1:]]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def arrays(computed):
    rows = [tuple(np.array([column[1], *column[1:]]) for column in tops(listed)) for _, listed in computed]
    return {
        "token_ids": np.concatenate([ids for ids, _ in computed]).astype(np.int32),
        "lengths": np.array([len(ids) for ids, _ in computed]),
        "top_ids": np.concatenate([ids for ids, _ in rows]).astype(np.int32),
        "logprobs": np.concatenate([logp for _, logp in rows]).astype(np.float32),
    }


WRITE = {
    "lines.jsonl": write_lines,
    "responses.jsonl": write_responses,
    "arrays.npz": lambda file, computed: np.savez(file, **arrays(computed)),
    "arrays.safetensors": lambda file, computed: save_file(arrays(computed), file),
}


def open_local(model, tokenizer, samples=None):
    form = partial(TopK, K) if samples is None else partial(Samples, samples)
    return CachedTeacher(lambda: LiveTeacher(model.eval(), tokenizer, V), "a", form)


@pytest.mark.parametrize("name", WRITE)
def test_imported_answers_are_those_of_a_capture(name, computed, encoded, tokenizer, tiny_model, tmp_path, monkeypatch):
    WRITE[name](tmp_path / name, computed)
    monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / "captured"))
    captured = open_local(tiny_model(seed=7, spread=30.0), tokenizer)
    captured.prepare(encoded.take(np.arange(12)))
    monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / "imported"))
    teacher = open_local(tiny_model(seed=7, spread=30.0), tokenizer)
    assert teacher.write(encoded.take(np.arange(10)), read_answers(tmp_path / name)) == (10, 0, 2)
    assert teacher.write(encoded, read_answers(tmp_path / name)) == (2, 10, 0)
    teacher.prepare(encoded.take(np.arange(12)))  # which checks them against the model
    assert teacher.cost["teacher_tokens"] == 0 < teacher.cost["teacher_check_tokens"]
    keys = as_keys([encoded.key_of(i) for i in range(12)])
    signals: Any = [t.format.decode_signal(t.store.read(keys), torch.device("cpu")) for t in (teacher, captured)]
    assert torch.equal(signals[0].ids, signals[1].ids)
    torch.testing.assert_close(signals[0].logp, signals[1].logp, rtol=1e-3, atol=1e-5)  # one step of float16
    torch.testing.assert_close(signals[0].tail.exp(), signals[1].tail.exp(), rtol=0.01, atol=1e-6)


def test_answers_of_another_model_do_not_pass_the_spot_check(
    computed, encoded, tokenizer, tiny_model, empty_cache, tmp_path
):
    write_lines(tmp_path / "a.jsonl", computed)
    teacher = open_local(tiny_model(seed=8, spread=30.0), tokenizer)
    teacher.write(encoded, read_answers(tmp_path / "a.jsonl"))
    with pytest.raises(RuntimeError, match="disagrees with the live teacher"):
        teacher.prepare(encoded)


def test_a_teacher_without_server_or_weights_lives_on_answers(computed, encoded, tokenizer, empty_cache, tmp_path):
    write_responses(tmp_path / "a.jsonl", computed)
    teacher = EndpointTeacher(Endpoint(model="far away", logprobs=K), tokenizer, TopK(K, V))
    teacher.write(encoded, read_answers(tmp_path / "a.jsonl"))
    teacher.prepare(encoded.take(np.arange(12)))
    with pytest.raises(InputError, match=r"28 sequences .* of 'far away', .* studykit cache --import"):
        teacher.prepare(encoded)


def test_samples_cannot_be_made_of_answers(computed, encoded, tokenizer, tiny_model, empty_cache, tmp_path):
    write_lines(tmp_path / "a.jsonl", computed)
    teacher = open_local(tiny_model(), tokenizer, samples=5)
    with pytest.raises(InputError, match="this cache holds samples: take top_k"):
        teacher.write(encoded, read_answers(tmp_path / "a.jsonl"))


GOOD = {"token_ids": [4, 6], "top_ids": [[], [1, 2, 3]], "logprobs": [[], [-1.0, -2.0, -3.0]]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1 is not JSON"),
        ([], "must have the lists token_ids, top_ids, logprobs"),
        (GOOD | {"token_ids": [4]}, "as long as each other"),
        (GOOD | {"token_ids": [4, "6"]}, "token_ids be ids"),
        (GOOD | {"top_ids": [[], [1, 2]]}, "a list of ids and one of as many numbers"),
        (GOOD | {"logprobs": [[], [-1.0, -2.0, "x"]]}, "a list of ids and one of as many numbers"),
        (GOOD | {"top_ids": [[], [1, 2, 2]]}, "must be different ids"),
        (GOOD | {"top_ids": [[], [1, 2, -2]]}, "must be different ids"),
        (GOOD | {"logprobs": [[], [0.3, 0.2, 0.1]]}, "sum to 3.68: natural logarithms"),
        (GOOD | {"logprobs": [[], [-1.0, float("nan"), -1.0]]}, "sum to nan"),
        (GOOD | {"top_ids": [[], [1]], "logprobs": [[], [-1.0]]}, "of 1 tokens, and 3 are to be kept: set top_k"),
        (GOOD | {"top_ids": [[], []], "logprobs": [[], []]}, "of 0 tokens, and 3 are to be kept"),
        ({"prompt_logprobs": [None, {"1": {"logprob": -1}}]}, "return_token_ids=true"),
        ({"prompt_token_ids": [4, 6], "prompt_logprobs": [None]}, "2 tokens must have as many prompt_logprobs"),
        ({"prompt_token_ids": [4, 6], "prompt_logprobs": [None, {"6": -1}]}, "prompt_logprobs must be objects"),
        ({"prompt_token_ids": [4, 6], "prompt_logprobs": [None, {"5": {"logprob": -1}}]}, "token 6 is missing"),
    ],
)
def test_a_wrong_line_is_refused_by_its_number(line, said, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(line if isinstance(line, str) else json.dumps(line), encoding="utf-8")
    with pytest.raises(InputError, match=said) as refused:
        [answer.keep(np.array([1]), 3) for answer in read_answers(file)]
    assert "a.jsonl, line 1" in str(refused.value)


def test_wrong_files_are_refused(computed, tmp_path):
    good = arrays(computed)
    np.savez(tmp_path / "less.npz", **{name: good[name] for name in ("token_ids", "lengths")})
    np.savez(tmp_path / "short.npz", **good | {"top_ids": good["top_ids"][:-1]})
    np.savez(tmp_path / "whole.npz", **good | {"logprobs": good["top_ids"]})
    (tmp_path / "torn.npz").write_bytes((tmp_path / "less.npz").read_bytes()[:100])
    (tmp_path / "torn.safetensors").write_bytes(b"\0" * 20)
    (tmp_path / "a.csv").write_text("")
    for name, said in {
        "less.npz": "must hold the arrays token_ids, lengths, top_ids, logprobs",
        "short.npz": "which sum to N",
        "whole.npz": "logprobs .* floats",
        "torn.npz": "cannot be read|must hold",
        "torn.safetensors": "cannot be read",
        "a.csv": "end in .jsonl, .safetensors, .npz",
        "none.jsonl": "cannot be read",
    }.items():
        with pytest.raises(InputError, match=said) as refused:
            list(read_answers(tmp_path / name))
        assert name in str(refused.value)
