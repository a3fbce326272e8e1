"""Teachers that generate through vLLM, with a small module instead of it: what it receives, and what is returned."""

import sys
from dataclasses import dataclass, fields
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from studykit.collate import collate
from studykit.errors import InputError
from studykit.generation import Sampling, Vocabulary
from studykit.generation.vllm import Vllm
from studykit.models.names import Models
from studykit.spec import RunSpec, Teacher
from studykit.teacher import open_teacher

END, ROWS = 2, 85


def open_it(folder, tokenizer, **changes):
    return open_teacher(Teacher(name=str(folder), **changes), Models().find(str(folder)), tokenizer, ROWS)


@dataclass
class SamplingParams:
    """The arguments that are used, checked as vLLM does."""

    temperature: float
    top_p: float
    max_tokens: int
    stop_token_ids: list[int]
    seed: int
    allowed_token_ids: list[int] | None
    skip_special_tokens: bool
    detokenize: bool

    def __post_init__(self):
        assert 0 <= self.temperature <= 2
        assert 0 < self.top_p <= 1
        assert self.max_tokens >= 1
        assert all(type(token) is int for token in [*self.stop_token_ids, *(self.allowed_token_ids or [])])
        assert 0 <= self.seed < 2**63


class Engine:
    """Draws from the allowed tokens by the seed alone, and stops after a stop token or at the limit."""

    started: list[dict[str, Any]]

    def __init__(self, **settings):
        self.started.append(settings)
        self.asked = []

    def generate(self, prompts, params, use_tqdm=True):
        assert not use_tqdm
        return [self.one(prompt, own) for prompt, own in zip(prompts, params, strict=True)]

    def one(self, prompt, own):
        self.asked.append((prompt["prompt_token_ids"], own))
        allowed = own.allowed_token_ids or list(range(ROWS))
        generator, tokens = torch.Generator().manual_seed(own.seed), []
        while len(tokens) < own.max_tokens and not (tokens and tokens[-1] in own.stop_token_ids):
            tokens.append(allowed[int(torch.randint(len(allowed), (), generator=generator))])
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(tokens))])


@pytest.fixture
def vllm(monkeypatch):
    """Put the module in place, with a list of the engines that were started."""
    module: Any = ModuleType("vllm")
    module.SamplingParams, module.TokensPrompt = SamplingParams, dict
    module.LLM = type("LLM", (Engine,), {"started": []})
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def generate(engine, prompts, max_new_tokens, sampling=None, seed=0, ends=(END, 7), vocab_size=80):
    generator, vocabulary = torch.Generator().manual_seed(seed), Vocabulary(ends, 0, vocab_size)
    return engine.generate(prompts, max_new_tokens, sampling or Sampling(0.7, 0.9), generator, vocabulary, ROWS)


def test_an_engine_is_started_by_the_first_generation_and_only_once(vllm):
    engine = Vllm("some/folder", "main")
    assert vllm.LLM.started == []
    generate(engine, [[5]], [0])
    assert vllm.LLM.started == []
    generate(engine, [[5]], [3])
    generate(engine, [[5]], [3])
    [settings] = vllm.LLM.started
    assert (settings["model"], settings["revision"]) == ("some/folder", "main")
    assert settings["skip_tokenizer_init"] is True
    assert settings["trust_remote_code"] is False
    assert 0 < settings["gpu_memory_utilization"] < 0.9


def test_everything_that_decides_an_answer_is_passed_on(vllm):
    engine = Vllm("folder")
    generate(engine, [[5, 6], [8], [9, 9, 9]], [4, 0, 11])
    (first, one), (second, other) = engine._engine.asked
    assert (first, second) == ([5, 6], [9, 9, 9])
    assert (one.max_tokens, other.max_tokens) == (4, 11)
    assert one.seed != other.seed
    for own in (one, other):
        assert (own.temperature, own.top_p) == (0.7, 0.9)
        assert own.stop_token_ids == [END, 7]
        assert own.allowed_token_ids == list(range(80))
        assert (own.skip_special_tokens, own.detokenize) == (False, False)
    assert {field.name for field in fields(SamplingParams)} == set(vars(one))
    generate(engine, [[5]], [1], vocab_size=ROWS)
    assert engine._engine.asked[-1][1].allowed_token_ids is None


def test_answers_lie_in_the_order_of_the_prompts_and_are_counted(vllm):
    engine, max_new_tokens = Vllm("folder"), [40, 0, 1, 200, 60]
    prompts = [[5], [6] * 9, [7, 7], [8], [9, 9, 9]]
    made = generate(engine, prompts, max_new_tokens)
    lengths = [len(row) for row in made.tokens]
    assert all(length <= limit for length, limit in zip(lengths, max_new_tokens, strict=True))
    assert made.tokens[1] == []
    assert made.ended == [bool(row) and row[-1] in (END, 7) for row in made.tokens]
    assert set(made.ended) == {True, False}
    assert all(token not in (END, 7) for row in made.tokens for token in row[:-1])
    assert max(token for row in made.tokens for token in row) < 80
    assert made.generated_tokens == sum(lengths)
    assert made.scored_tokens == [sum(len(p) + n - 1 for p, n in zip(prompts, lengths, strict=True) if n)]


def test_the_generator_decides_every_draw_and_goes_on(vllm):
    engine, prompts, max_new_tokens = Vllm("folder"), [[5], [5]], [9, 9]
    first, again, other = (generate(engine, prompts, max_new_tokens, seed=seed).tokens for seed in (1, 1, 2))
    assert first == again != other
    assert first[0] != first[1]
    generator = torch.Generator().manual_seed(1)
    settings = Sampling(), generator, Vocabulary([END], 0, 80), ROWS
    one, two = (engine.generate(prompts, max_new_tokens, *settings).tokens for _ in range(2))
    assert one != two


def test_temperatures_that_vllm_refuses_are_named(vllm):
    with pytest.raises(InputError, match=r"up to 2, received 2\.5"):
        generate(Vllm("folder"), [[5]], [3], Sampling(2.5))


def test_without_vllm_one_line_says_how_to_install_it(monkeypatch, teacher_folder, tokenizer):
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr("studykit.teacher.load_teacher", None)  # the refusal comes before a model is loaded
    with pytest.raises(InputError, match=r"pip install 'studykit\[vllm\]'") as caught:
        open_teacher(
            Teacher(name=str(teacher_folder), engine="vllm"), Models().find(str(teacher_folder)), tokenizer, ROWS
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cached", [{}, {"top_k": 4, "sha256": "x"}])
def test_a_teacher_generates_through_its_engine(cached, vllm, teacher_folder, tokenizer, encoded):
    teacher = open_teacher(
        Teacher(name=str(teacher_folder), engine="vllm", **cached), Models().find(str(teacher_folder)), tokenizer, ROWS
    )
    batch = collate(encoded, [0, 5, 9], tokenizer.pad_token_id)
    made = teacher.generate(batch, [2, 0], [6, 4], Sampling(0.5, 0.8), torch.Generator().manual_seed(3))
    assert [settings["model"] for settings in vllm.LLM.started] == [str(teacher_folder)]
    live: Any = getattr(teacher, "live", teacher)
    prompts, params = zip(*live.engine._engine.asked, strict=True)
    assert list(prompts) == [batch.prompts()[2], batch.prompts()[0]]
    assert [own.max_tokens for own in params] == [6, 4]
    assert params[0].stop_token_ids == [tokenizer.eos_token_id]
    assert [len(row) <= limit for row, limit in zip(made.tokens, [6, 4], strict=True)] == [True, True]


def test_without_an_engine_nothing_of_it_is_touched(monkeypatch, teacher_folder, tokenizer, encoded):
    monkeypatch.setitem(sys.modules, "vllm", None)
    teacher = open_it(teacher_folder, tokenizer)
    batch = collate(encoded, [0], tokenizer.pad_token_id)
    assert len(teacher.generate(batch, [0], [3], Sampling(), torch.Generator()).tokens) == 1


def test_a_pruned_teacher_has_no_engine(vllm, teacher_folder, tokenizer):
    with pytest.raises(InputError, match="where pruned has changed none"):
        open_teacher(
            Teacher(name=str(teacher_folder), engine="vllm", pruned=0.3),
            Models().find(str(teacher_folder)),
            tokenizer,
            ROWS,
        )


def test_an_engine_is_part_of_what_a_run_is_and_none_is_as_before(plain_spec, stage):
    plain = plain_spec(stage("seqkd"))
    spec = RunSpec.parse(plain)
    assert "engine" not in spec.canonical()
    other = RunSpec.parse(plain | {"teacher": plain["teacher"] | {"engine": "vllm"}})
    assert other.run_id != spec.run_id
    with pytest.raises(InputError, match=r"teacher\.engine"):
        RunSpec.parse(plain | {"teacher": plain["teacher"] | {"engine": "tgi"}})
