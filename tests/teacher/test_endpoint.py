"""A teacher on a server: what lands in the cache is what a capture on this machine stores, whatever fails."""

import json
import logging
import os
import signal
import socket
from functools import partial

import numpy as np
import pytest
import torch
from completions_server import FAULTS, MODEL, Answers, serving

from studykit.errors import Failure, InputError
from studykit.models.loading import load_teacher
from studykit.models.names import Models
from studykit.spec import Endpoint
from studykit.teacher import completions
from studykit.teacher.cached import CachedTeacher
from studykit.teacher.endpoint import EndpointTeacher
from studykit.teacher.formats import TopK
from studykit.teacher.live import LiveTeacher
from studykit.teacher.store import as_keys

V, K = 85, 8
ALL = np.arange(40)


@pytest.fixture(scope="module")
def embedded(one_thread):
    model = Models().find("lexicon/teacher-a")
    return load_teacher(model), model.tokenizer


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Try again soon, and without a proxy."""
    monkeypatch.setattr(completions, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(completions, "_LONGEST_PAUSE_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def open_endpoint(tokenizer, url, k=K, **fields):
    settings = {"timeout_s": 30.0, "requests": 8, "retries": 3} | fields
    return EndpointTeacher(Endpoint(url=url, model=MODEL, logprobs=k, **settings), tokenizer, TopK(k, V))


def stored(teacher, encoded):
    """Return ids, log-probabilities and tail of all sequences."""
    keys = as_keys([encoded.key_of(i) for i in range(len(encoded))])
    teacher.store.want(keys)
    teacher.store.refresh()
    assert teacher.store.has(keys).all()
    signal = teacher.format.decode_signal(teacher.store.read(keys), torch.device("cpu"))
    return signal.ids, signal.logp, signal.tail


def assert_same(teacher, local, encoded):
    (ids, logp, tail), (local_ids, local_logp, local_tail) = stored(teacher, encoded), stored(local, encoded)
    assert torch.equal(ids, local_ids)
    torch.testing.assert_close(logp, local_logp, rtol=1e-3, atol=1e-5)  # one step of float16
    # a step of float16 is 0.8% at a logarithm of -8 to -16; below, 1 less a sum of float32 numbers is their rounding
    torch.testing.assert_close(tail.exp(), local_tail.exp(), rtol=0.01, atol=1e-6)


def capture_here(embedded, encoded, k=K):
    local = CachedTeacher(lambda: LiveTeacher(*embedded, vocab_size=V), "a", partial(TopK, k))
    local.prepare(encoded)
    return local


def test_what_lands_in_the_cache_is_what_a_local_capture_stores(embedded, encoded, empty_cache):
    answers, done = Answers(*embedded, faults=4), []
    with serving(answers) as url:
        teacher = open_endpoint(embedded[1], url, timeout_s=0.4, retries=200)
        teacher.prepare(encoded, lambda count, total: done.append((count, total)))
        teacher.release()
    assert {fault for fault in answers.failed if fault} == set(FAULTS)
    assert done[-1] == (encoded.response_tokens.sum(),) * 2
    assert answers.most_at_once > 1
    assert teacher.cost["teacher_tokens"] == encoded.lengths.sum()
    assert_same(teacher, capture_here(embedded, encoded), encoded)


def test_the_whole_vocabulary_leaves_no_tail(embedded, encoded, empty_cache):
    encoded = encoded.take(ALL[:4])
    with serving(Answers(*embedded)) as url:
        teacher = open_endpoint(embedded[1], url, k=V)
        teacher.prepare(encoded)
    local = capture_here(embedded, encoded, k=V)
    assert torch.equal(stored(teacher, encoded)[2], stored(local, encoded)[2])


def test_stored_sequences_are_sent_for_a_spot_check_only(embedded, encoded, empty_cache):
    with serving(Answers(*embedded)) as url:
        open_endpoint(embedded[1], url).prepare(encoded.take(ALL[:30]))
    answers = Answers(*embedded)
    with serving(answers) as url:
        teacher = open_endpoint(embedded[1], url)
        teacher.prepare(encoded)
    new = {tuple(encoded.ids_of(i).tolist()) for i in range(30, 40)}
    assert new <= set(answers.asked)
    assert teacher.cost["teacher_tokens"] == encoded.lengths[30:].sum()
    assert 0 < teacher.cost["teacher_check_tokens"] < encoded.lengths[:30].sum() + 1


@pytest.mark.parametrize("url", ["gone", None])
def test_a_complete_cache_needs_no_server(url, embedded, encoded, empty_cache, caplog):
    with serving(Answers(*embedded)) as there:
        first = open_endpoint(embedded[1], there)
        first.prepare(encoded.take(ALL[:8]))
    teacher = open_endpoint(embedded[1], url and there)
    with caplog.at_level(logging.WARNING):
        teacher.prepare(encoded.take(ALL[:8]))
    assert ("used unchecked" in caplog.text) == (url is not None)
    assert not teacher.is_reachable(encoded)
    for one, other in zip(stored(first, encoded.take(ALL[:8])), stored(teacher, encoded.take(ALL[:8])), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match=r"no server answers|32 sequences of the data are not in the cache"):
        teacher.prepare(encoded)


def test_another_model_under_the_same_name_is_noticed(embedded, encoded, empty_cache, tiny_model):
    with serving(Answers(*embedded)) as url:
        open_endpoint(embedded[1], url).prepare(encoded.take(ALL[:8]))
    other = tiny_model(seed=1, spread=30.0).eval()
    with serving(Answers(other, embedded[1])) as url, pytest.raises(Failure, match=f"disagrees with '{MODEL}'"):
        open_endpoint(embedded[1], url).prepare(encoded.take(ALL[:8]))


def test_what_was_answered_before_the_server_failed_stays(embedded, encoded, empty_cache, monkeypatch):
    monkeypatch.setattr("studykit.teacher.endpoint._ROUNDS", 1)
    answers = Answers(*embedded)
    answers.refuse_after = 20
    with serving(answers) as url:
        with pytest.raises(Failure, match=r"gave no answer, asked 4 times \(500 .*too busy\).*run again to go on"):
            open_endpoint(embedded[1], url, requests=4).prepare(encoded)
        before, answers.refuse_after, answers.asked = list(answers.asked), None, []
        teacher = open_endpoint(embedded[1], url, requests=4)
        teacher.prepare(encoded)
    assert teacher.cost["teacher_tokens"] <= encoded.lengths.sum() - sum(map(len, before[:16]))
    assert_same(teacher, capture_here(embedded, encoded), encoded)


def capture_until_killed(url, encoded, done):
    """Capture with a shard for every part, until the third one begins."""
    from studykit.teacher import cached, endpoint

    cached._SHARD_S, endpoint._ROUNDS = 0.0, 1
    teacher = open_endpoint(Models().find("lexicon/tokenizer").tokenizer, url, requests=4)
    parts = []

    def count(captured, total):
        parts.append(captured)
        if len(parts) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    teacher.prepare(encoded, count)


def test_a_killed_capture_sends_nothing_again_that_is_stored(embedded, encoded, empty_cache, start, join, tmp_path):
    answers = Answers(*embedded)
    with serving(answers) as url:
        assert join(start(capture_until_killed, url, encoded, None)) == -signal.SIGKILL
        before, answers.asked = set(answers.asked), []
        teacher = open_endpoint(embedded[1], url)
        teacher.prepare(encoded)
    # Of three parts of four two were written; these are only checked.
    assert len(before) == 12
    assert len(answers.asked) == len(set(answers.asked)) == 40
    checked = teacher.cost["teacher_check_tokens"]
    assert teacher.cost["teacher_tokens"] == encoded.lengths.sum() - checked
    assert sum(sorted(map(len, before))[:8]) <= checked <= sum(sorted(map(len, before))[-8:])


def test_the_key_goes_to_the_server_and_nowhere_else(embedded, encoded, empty_cache, monkeypatch, caplog):
    monkeypatch.setenv("TEACHER_KEY", "sk-secret-123")
    with serving(Answers(*embedded, key="sk-secret-123")) as url:
        open_endpoint(embedded[1], url, api_key_env="TEACHER_KEY").prepare(encoded.take(ALL[:4]))
    for file in (file for file in empty_cache.rglob("*") if file.is_file()):
        assert b"sk-secret" not in file.read_bytes()
    with serving(Answers(*embedded, key="another")) as url, pytest.raises(InputError) as refused:
        open_endpoint(embedded[1], url, api_key_env="TEACHER_KEY").prepare(encoded)
    assert "401" in str(refused.value)
    assert "***" in str(refused.value)
    assert "secret" not in str(refused.value) + caplog.text
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(InputError, match="environment variable TEACHER_KEY is not set"):
        open_endpoint(embedded[1], url, api_key_env="TEACHER_KEY").prepare(encoded)


def without(name):
    def change(choice):
        return {key: value for key, value in choice.items() if key != name}

    return change


def shifted(choice):
    return choice | {"prompt_logprobs": [None, *choice["prompt_logprobs"][:-1]]}


def without_logarithm(choice):
    places = [place and {t: {"logprob": 0.5} for t in place} for place in choice["prompt_logprobs"]]
    return choice | {"prompt_logprobs": places}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"most": 5}, r"max allowed: 5.*start vLLM with --max-logprobs 8"),
        ({"longest": 9}, r"reads 8 of 'big/teacher': lower max_length"),
        ({"change": without("prompt_logprobs")}, "must have as many prompt_logprobs, received none"),
        ({"change": shifted}, "belong to other tokens|must be objects"),
        ({"change": without_logarithm}, "natural logarithms of probabilities are needed"),
    ],
)
def test_a_server_that_will_not_do_is_refused_in_one_line(changes, said, embedded, encoded, empty_cache):
    answers = Answers(*embedded)
    vars(answers).update(changes)
    with serving(answers) as url, pytest.raises(InputError, match=said) as refused:
        open_endpoint(embedded[1], url).prepare(encoded)
    assert "\n" not in str(refused.value)
    assert not list(empty_cache.rglob("*.safetensors"))


def test_another_name_and_another_tokenizer_are_refused(embedded, encoded, empty_cache):
    class Reversed:
        def decode(self, ids):
            return embedded[1].decode([84 - ids[0]])

    with serving(Answers(*embedded)) as url:
        teacher = EndpointTeacher(Endpoint(url=url, model="big/teacha", logprobs=K), embedded[1], TopK(K, V))
        with pytest.raises(InputError, match="unknown model 'big/teacha'; did you mean 'big/teacher'"):
            teacher.prepare(encoded)
    with serving(Answers(embedded[0], Reversed())) as url, pytest.raises(InputError, match="has another tokenizer"):
        open_endpoint(embedded[1], url).prepare(encoded)


def test_an_address_where_no_server_is_ends_a_run_soon(embedded, encoded, empty_cache):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        teacher = open_endpoint(embedded[1], f"http://127.0.0.1:{taken.getsockname()[1]}/v1", retries=10**6)
        with pytest.raises(InputError, match=r"no server answers at .*: start it, or correct endpoint.url"):
            teacher.prepare(encoded)


def test_rows_past_the_tokenizer_leave_their_probability_to_the_tail():
    form = TopK(3, 10)
    ids, logp = torch.tensor([[4, 12, 0]]), torch.tensor([[0.5, 0.2, 0.1]]).log()
    kept, both = form.encode_known(ids, logp)
    assert kept.tolist() == [[4, 1, 0]]
    # 0.4 are left for the 8 other tokens; one of them stands in the list, the other 7 are the tail
    torch.testing.assert_close(both.float().exp(), torch.tensor([[0.5, 0.05, 0.1, 0.35]]), rtol=2e-3, atol=0)
    assert json.dumps(form.key) == "[3]"
