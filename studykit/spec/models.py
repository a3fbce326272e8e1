"""The models of a run: the student that is trained, the teacher that is distilled, and a server that may compute it."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from studykit.spec.part import AppliedTo, Part, PassedTo
from studykit.spec.pruning import prune

WHERE: dict[str, Any] = {"device_map": True, "endpoint": {"url", "api_key_env", "timeout_s", "requests", "retries"}}
"""Fields of a teacher that say where it computes and how it is reached, not what it is: no part of any id."""

Attention = Annotated[str | None, PassedTo("from_pretrained"), PassedTo("from_config")]


class Lora(Part):
    """Low-rank adapters through peft, in peft's words."""

    lora_r: Annotated[int, PassedTo("LoraConfig", "r")] = Field(default=16, ge=1)
    lora_alpha: Annotated[int, PassedTo("LoraConfig")] = Field(default=32, ge=1)
    lora_dropout: Annotated[float, PassedTo("LoraConfig")] = Field(default=0.0, ge=0, lt=1)
    lora_target_modules: str | tuple[str, ...] = "all-linear"


class Student(Part):
    """The model that is trained.

    `name` is an embedded model (`lexicon/base-small`), the id of a finished run, a local folder or a hub id.
    With `random_config` the weights are drawn at random for that architecture (seeded by the run) and `name`
    gives the tokenizer only.
    """

    name: str
    revision: str | None = None
    random_config: dict[str, Any] | None = None
    lora: Lora | None = None
    attn_implementation: Attention = Field(default=None, description="in the words of transformers; None: its choice")
    sha256: str | None = Field(default=None, description="of the weights or configuration; filled in by `study.pin`")


def _as_url(url: str | None) -> str | None:
    """Return the address of a server without a slash at its end.

    >>> _as_url("http://localhost:8000/v1/")
    'http://localhost:8000/v1'
    """
    if url is None:
        return None
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest.strip("/"):
        raise ValueError("must be the address of a server, such as 'http://localhost:8000/v1'")
    if "@" in rest.partition("/")[0] or "?" in rest:
        raise ValueError("must hold no name, password or key, since it is written to records: use api_key_env")
    return url.rstrip("/")


class Endpoint(Part):
    """A server that gives a teacher's distribution: the completions protocol of OpenAI with vLLM's `prompt_logprobs`.

    It gets token ids, and answers with the `logprobs` likeliest tokens at every position. Without `url` no server is
    queried: the cache must hold all answers, as `studykit cache --import` writes them.
    """

    url: Annotated[str | None, AfterValidator(_as_url)] = Field(
        default=None, description="up to and with /v1; None: only what the cache holds"
    )
    model: str = Field(min_length=1, description="the name under which the server serves it")
    logprobs: int | None = Field(default=None, ge=1, description="likeliest tokens at a position; the teacher's top_k")
    api_key_env: str | None = Field(
        default=None, pattern=r"^[A-Za-z_]\w*$", description="name of the environment variable with the key"
    )
    timeout_s: float = Field(default=300.0, gt=0, description="of one request")
    requests: int = Field(default=32, ge=1, le=1024, description="at the same time")
    retries: int = Field(default=8, ge=0, description="of a request that fails, with growing pauses")


class Teacher(Part):
    """The model that is distilled: named like a student, never trained.

    With neither `top_k` nor `samples` the teacher runs at every step and gives its full distribution. With `top_k` it
    runs once, and a cache that all runs of a study share stores the `top_k` largest probabilities and one tail category
    for all others; with `samples` the cache stores this number of draws with replacement. `pruned` sets this share of
    the smallest weights of each linear layer to 0 first. `engine` generates the teacher's answers for methods
    that train on them: vLLM, or transformers where it is left out.

    A teacher that does not fit: `device_map` spreads it over the GPUs of this machine, `quantization` makes it smaller,
    and with `endpoint` a server answers instead, so that `name` gives the tokenizer only.
    """

    name: str
    revision: str | None = None
    top_k: int | None = Field(default=None, ge=1)
    samples: int | None = Field(default=None, ge=1, le=255)
    pruned: Annotated[float | None, AppliedTo("teacher", prune, off=0)] = Field(default=None, ge=0, lt=1)
    engine: Literal["vllm"] | None = None
    attn_implementation: Attention = Field(default=None, description="in the words of transformers; None: its choice")
    device_map: str | dict[str, int | str] | None = Field(
        default=None, description="where its layers are, in the words of transformers, such as 'auto'; None: one device"
    )
    quantization: Literal["int8", "nf4", "fp4"] | None = Field(
        default=None, description="of its linear layers, by bitsandbytes; None: none"
    )
    endpoint: Endpoint | None = Field(default=None, description="a server that answers instead")
    sha256: str | None = Field(default=None, description="of the weights; filled in by `study.pin`")

    @model_validator(mode="before")
    @classmethod
    def _one_k(cls, given: Any) -> Any:
        """Fill in `top_k` and `endpoint.logprobs` from each other: all that a server returns is stored."""
        endpoint = given.get("endpoint") if isinstance(given, dict) else None
        endpoint = endpoint.model_dump() if isinstance(endpoint, Endpoint) else endpoint
        if not isinstance(endpoint, dict):
            return given
        asked, kept = endpoint.get("logprobs"), given.get("top_k")
        if asked is not None and kept is not None and asked != kept:
            raise ValueError(f"top_k={kept} and endpoint.logprobs={asked} are the same number: give one of them")
        number = kept if asked is None else asked
        return given | {"top_k": number, "endpoint": endpoint | {"logprobs": number}}

    @model_validator(mode="after")
    def _one_cache(self) -> Self:
        if self.top_k is not None and self.samples is not None:
            raise ValueError(f"give top_k={self.top_k} or samples={self.samples}, not both")
        if self.endpoint is None:
            return self
        if self.top_k is None:
            raise ValueError("an endpoint gives the likeliest tokens of a distribution: set endpoint.logprobs")
        if local := [*self.acting_on("teacher"), *(name for name in _OF_WEIGHTS if getattr(self, name) is not None)]:
            raise ValueError(f"{local[0]} is a matter of the server where there is an endpoint: leave it out")
        return self

    @property
    def is_cached(self) -> bool:
        """Whether it runs ahead of training, and is known on the sequences of the data only."""
        return self.top_k is not None or self.samples is not None


_OF_WEIGHTS = ("engine", "attn_implementation", "device_map", "quantization")
"""Fields of a teacher whose weights are on this machine, besides those that are applied to it."""
