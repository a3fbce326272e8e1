"""A client of servers that give log-probabilities of prompts: many requests at a time, each tried again where it fails.

    client = CompletionsClient(endpoint)
    client.check(tokenizer, ids)                    # the model is served, and its tokens are those of the tokenizer
    answers = client.ask([ids, other_ids], k=64)

The protocol is that of OpenAI's completions with vLLM's `prompt_logprobs`: `POST URL/completions` with token ids as the
prompt. One token is generated, since no server generates none, and thrown away.
"""

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import cached_property
from typing import Any

import httpx

from studykit.errors import Failure, InputError, one_line, unknown
from studykit.spec import Endpoint
from studykit.teacher.answers import Answer

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
"""Before a request is tried again: the first time, and at most; each is twice as long as the one before."""

_UNREACHABLE_TRIES = 3
"""Of a server that has never answered: a wrong address is refused soon."""

_AGAIN = (408, 409, 425, 429)
"""Answers below 500 that may be others a little later."""

_COMPARED_TOKENS = 200


class Unreachable(InputError):
    """No server answers at the address."""


class _Again(Exception):
    """A request failed in a way that may be over soon; `pause_s` is how long the server asks to wait."""

    def __init__(self, fault: str, pause_s: float = 0.0, refused: bool = False):
        super().__init__(fault)
        self.pause_s, self.refused = pause_s, refused


class CompletionsClient:
    """Asks one server.

    Args:
        endpoint: its address, model and limits.

    Raises:
        InputError: the environment variable that should hold the key is not set.
    """

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        self._key = os.environ.get(endpoint.api_key_env, "") if endpoint.api_key_env else ""
        if endpoint.api_key_env and not self._key:
            raise InputError(
                f"endpoint.api_key_env: the environment variable {endpoint.api_key_env} is not set: set it to the key "
                f"of {endpoint.url}, or leave api_key_env out"
            )
        self._stopped = threading.Event()

    @cached_property
    def _http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=self.endpoint.requests)
        return httpx.Client(headers=headers, limits=limits, timeout=self.endpoint.timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._stopped.set()
        self._http.close()

    def check(self, tokenizer: Any, ids: Sequence[int]) -> None:
        """Refuse a server that is not there, does not have the model, or has another tokenizer.

        Args:
            tokenizer: whose token ids the sequences hold.
            ids: a sequence of the data, the longest one.

        Raises:
            Unreachable: no server answers.
            InputError: the model is not served, or not with these tokens or this length.
        """
        name, served = self.endpoint.model, self._list_models()
        if served and name not in served:
            raise InputError(f"{self.endpoint.url}: {unknown('model', name, served)}")
        limit = served.get(name)
        if isinstance(limit, int) and len(ids) >= limit:
            raise InputError(
                f"a sequence has {len(ids):,} tokens, and {self.endpoint.url} reads {limit - 1:,} of {name!r}: lower "
                "max_length, or leave out longer examples"
            )
        self._check_tokens(tokenizer, ids)

    def ask(self, sequences: Sequence[Sequence[int]], k: int) -> list[Answer]:
        """Return the k likeliest tokens at every position of sequences, in their order.

        Raises:
            Failure: the server does not answer, however often a request is sent.
            InputError: it refuses a request, or its answers are no log-probabilities.
        """
        if not sequences:
            return []
        pool = ThreadPoolExecutor(min(self.endpoint.requests, len(sequences)))
        try:
            asked = [pool.submit(self._ask_one, list(ids), k) for ids in sequences]
            done, _ = wait(asked, return_when=FIRST_EXCEPTION)
            for fault in (request.exception() for request in done):
                if fault is not None:
                    raise fault
            return [request.result() for request in asked]
        except BaseException:
            self._stopped.set()  # requests that are to be sent again, or at all, are given up
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask_one(self, ids: list[int], k: int) -> Answer:
        return Answer.of_prompt_logprobs(ids, self._prompt_logprobs(ids, k), f"{self.endpoint.url}")

    def _prompt_logprobs(self, ids: list[int], k: int) -> Any:
        body = {"model": self.endpoint.model, "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": k}
        answer = self._try("POST", "/completions", body)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        return choice.get("prompt_logprobs") if isinstance(choice, dict) else None

    def _list_models(self) -> dict[str, int | None]:
        """Return the names of the models that are served, with their longest sequence; none where there is no list."""
        try:
            answer = self._try("GET", "/models")
        except _Refused:
            return {}
        data = answer.get("data") if isinstance(answer, dict) else None
        models = [model for model in data if isinstance(model, dict)] if isinstance(data, list) else []
        return {str(model["id"]): model.get("max_model_len") for model in models if "id" in model}

    def _check_tokens(self, tokenizer: Any, ids: Sequence[int]) -> None:
        """Refuse a server to which the ids are other tokens, by the texts that it gives beside them."""
        part = list(ids)[:_COMPARED_TOKENS]
        places = [place for place in self._prompt_logprobs(part, 1) or [] if isinstance(place, dict)]
        texts = {int(token): given.get("decoded_token") for place in places for token, given in place.items()}
        known = {token: text for token, text in texts.items() if isinstance(text, str) and text.strip(" \ufffd")}
        same = sum(tokenizer.decode([token]).strip() == text.strip() for token, text in known.items())
        if same < len(known) / 2:
            token, text = next(iter(known.items()))
            raise InputError(
                f"{self.endpoint.url} has another tokenizer than the teacher's name says: token {token} is {text!r} "
                f"there and {tokenizer.decode([token])!r} here: correct teacher.name or endpoint.model"
            )

    def _try(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a request until it is answered."""
        tries = 0
        while True:
            try:
                return self._send(method, path, body)
            except _Again as fault:
                tries += 1
                if fault.refused and method == "GET" and tries >= _UNREACHABLE_TRIES:
                    reason = f"no server answers at {self.endpoint.url} ({fault})"
                    raise Unreachable(f"{reason}: start it, or correct endpoint.url") from None
                if tries > self.endpoint.retries or self._stopped.wait(_pause_s(tries, fault.pause_s)):
                    raise Failure(
                        f"{self.endpoint.url} gave no answer, asked {tries} times ({fault}): what it had answered is "
                        "in the cache; run again to go on"
                    ) from None

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        until = time.monotonic() + self.endpoint.timeout_s
        content = bytearray()
        try:
            if self._stopped.is_set():
                raise _Again("given up")
            with self._http.stream(method, f"{self.endpoint.url}{path}", json=body) as response:
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > until:
                        raise _Again(f"no whole answer within {self.endpoint.timeout_s:g} s")
        except httpx.ConnectError as error:
            raise _Again(one_line(error), refused=True) from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _Again(f"{type(error).__name__}: {one_line(error)}") from None
        except httpx.InvalidURL as error:
            raise InputError(f"endpoint.url {self.endpoint.url!r} is no address: {one_line(error)}") from None
        if response.status_code != 200:
            raise self._fault(response, bytes(content))
        try:
            return json.loads(content)
        except ValueError:
            raise _Again("its answer is not JSON") from None

    def _fault(self, response: httpx.Response, content: bytes) -> Exception:
        """Return what an answer with another status than 200 means: a request to try again, or one that is wrong."""
        status = response.status_code
        said = f"{status} {response.reason_phrase}: {self._hide(_message(content))}".rstrip(": ")
        if status in _AGAIN or status >= 500:
            asked = response.headers.get("retry-after", "")
            return _Again(said, pause_s=float(asked) if asked.isdigit() else 0.0)
        if status in (401, 403):
            return InputError(f"{self.endpoint.url} wants another key ({said}): name its variable in api_key_env")
        more = f": start vLLM with --max-logprobs {self.endpoint.logprobs}" if "logprobs" in said else ""
        return _Refused(f"{self.endpoint.url} refuses a request ({said}){more}")

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Refused(InputError):
    """The server says that a request is wrong."""


def _message(content: bytes) -> str:
    """Return the text of an error, in any of the usual layouts.

    >>> _message(b'{"error": {"message": "no such model"}}'), _message(b"<html>")
    ('no such model', '<html>')
    """
    text = content[:2000].decode(errors="replace")
    try:
        given = json.loads(content)
        given = given.get("error", given)
        return str(given["message"] if isinstance(given, dict) else given)[:200]
    except (ValueError, KeyError, AttributeError):
        return text[:200]


def _pause_s(tries: int, asked_s: float) -> float:
    """Return the seconds before a request is sent again, at random so that not all come at once."""
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (tries - 1))
    return max(min(asked_s, 4 * _LONGEST_PAUSE_S), longest * random.uniform(0.5, 1.0))
