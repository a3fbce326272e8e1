"""A real HTTP server on this machine that answers like vLLM's completions, from a small model, and fails on purpose."""

import json
import random
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

FAULTS = ("drop", "half", "429", "500", "503", "not json", "slow", "dribble")
MODEL = "big/teacher"


class Answers:
    """The answers of the server, and a list of its requests.

    Args:
        model: whose distributions it gives.
        tokenizer: for the texts of tokens.
        faults: how many failures there are at most before a sequence is answered.
        key: without which it answers nothing.
        most: largest number of log-probabilities, as `--max-logprobs`.
    """

    def __init__(self, model, tokenizer, *, faults=0, key=None, most=100, longest=None, seed=0):
        self.model, self.tokenizer, self.key, self.most, self.longest = model, tokenizer, key, most, longest
        self.faults, self.seed = faults, seed
        self.lock, self.asked, self.failed, self.at_once, self.most_at_once = threading.Lock(), [], Counter(), 0, 0
        self.tries = Counter()
        self.left_s = 0.5
        self.refuse_after: int | None = None
        self.change = lambda choice: choice

    def fault(self, ids):
        """Return how the next request for a sequence fails; the same for a seed, whichever request comes first."""
        with self.lock:
            number = self.tries[tuple(ids)]
            self.tries[tuple(ids)] += 1
            if self.refuse_after is not None and len(self.asked) >= self.refuse_after:
                return "500"
        generator = random.Random(f"{self.seed} {ids}")
        kinds = [generator.choice(FAULTS) for _ in range(generator.randint(0, self.faults))]
        return kinds[number] if number < len(kinds) else None

    @torch.no_grad()
    def prompt_logprobs(self, ids, k):
        with self.lock:  # one at a time, as the tests are to be cheap
            logits = self.model(torch.tensor([ids])).logits[0].float()
        places: list[dict | None] = [None]
        for token, logp in zip(ids[1:], logits[:-1].log_softmax(-1), strict=True):
            best = logp.topk(min(k, len(logp))).indices.tolist()
            rank = int((logp > logp[token]).sum()) + 1
            ranks = {token: rank} | {other: number for number, other in enumerate(best, 1)}
            places.append(
                {
                    str(t): {"logprob": logp[t].item(), "rank": n, "decoded_token": self.tokenizer.decode([t])}
                    for t, n in ranks.items()
                }
            )
        return places


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    answers: Answers

    def log_message(self, format, *arguments):
        pass

    def reply(self, status, body, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def allowed(self):
        given = self.headers.get("Authorization")
        if self.answers.key in (None, (given or "").removeprefix("Bearer ")):
            return True
        self.reply(401, {"error": f"Unauthorized: {given}"})
        return False

    def do_GET(self):
        if self.allowed():
            model = {"id": MODEL, "object": "model", "max_model_len": self.answers.longest}
            self.reply(200, {"object": "list", "data": [model]})

    def do_POST(self):
        answers = self.answers
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        ids, k = body["prompt"], body["prompt_logprobs"]
        assert (body["model"], body["max_tokens"], self.path) == (MODEL, 1, "/v1/completions")
        if k > answers.most:
            said = f"Requested prompt logprobs of {k}, which is greater than max allowed: {answers.most}"
            self.reply(400, {"error": {"message": said, "type": "BadRequestError", "code": 400}})
            return
        with answers.lock:
            answers.at_once += 1
            answers.most_at_once = max(answers.most_at_once, answers.at_once)
        try:
            self.answer(ids, k)
        except OSError:
            pass  # the client has given up
        finally:
            with answers.lock:
                answers.at_once -= 1

    def answer(self, ids, k):
        answers = self.answers
        fault = answers.fault(ids)
        answers.failed[fault] += 1
        if fault == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault in ("429", "500", "503"):
            self.reply(int(fault), {"error": {"message": "too busy"}}, Retry_After="0")
        elif fault == "not json":
            self.reply(200, b"<html>bad gateway</html>")
        elif fault == "slow":
            time.sleep(answers.left_s)
            self.close_connection = True
        else:
            choice = {"index": 0, "text": "x", "prompt_logprobs": answers.prompt_logprobs(ids, k)}
            content = json.dumps({"object": "text_completion", "choices": [answers.change(choice)]}).encode()
            if fault in ("half", "dribble"):
                self.close_connection = True
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                for start in range(0, len(content) // 2, len(content) // 20 + 1):
                    self.wfile.write(content[start : start + len(content) // 20 + 1])
                    time.sleep(answers.left_s / 5 if fault == "dribble" else 0)
                return
            if len(ids) > 1 and k > 1:  # the look at its tokens asks for one
                answers.asked.append(tuple(ids))
            self.reply(200, content)


@contextmanager
def serving(answers):
    """Serve on a free port of this machine, and give the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"answers": answers}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
