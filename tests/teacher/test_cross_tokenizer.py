"""A teacher with another tokenizer: which positions are aligned, what its signal is there, which methods accept it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from studykit import results, study
from studykit.chat import encode
from studykit.collate import collate
from studykit.errors import InputError
from studykit.generation import Completions, Sampling
from studykit.losses import LossInputs, get_loss
from studykit.models.names import Models
from studykit.rollouts import RolloutContext, get_rollout
from studykit.sources import Example
from studykit.spec import Teacher
from studykit.teacher import open_teacher
from studykit.teacher.cross_tokenizer import CrossTokenizerTeacher
from tools.embed import build_letter_tokenizer, shape

MULTI_TURN = Example(
    "two-turns",
    (
        {"role": "system", "content": "Spell Spell"},
        {"role": "user", "content": "Pronounce c a t"},
        {"role": "assistant", "content": "K AE T"},
        {"role": "user", "content": "Pronounce d o g"},
        {"role": "assistant", "content": "D AO G ER AE"},
        {"role": "user", "content": "Spell S IY"},
        {"role": "assistant", "content": "s e a"},
    ),
    "s",
    "human",
    "train",
)


@pytest.fixture(scope="module")
def letters():
    """Return a tokenizer in which a phoneme is as many tokens as it has letters."""
    return build_letter_tokenizer()


@pytest.fixture(scope="module")
def pair(tiny_model, tokenizer, letters):
    """Make a teacher, the student's sequences and the teacher's; the teacher's head is padded by 7 rows."""

    def make(examples, student="words", spread=20.0):
        ours, theirs = (tokenizer, letters) if student == "words" else (letters, tokenizer)
        fields = shape(16, 2, 2, theirs) | {"vocab_size": len(theirs) + 7}
        teacher = CrossTokenizerTeacher(tiny_model(seed=5, spread=spread, **fields).eval(), theirs, ours)
        encoded = encode(examples, ours, None), encode(examples, theirs, None)
        teacher.pair(examples, *encoded)
        return teacher, *encoded

    return make


@pytest.fixture(scope="module")
def letter_folder(tmp_path_factory, tiny_model, letters):
    """Save a random teacher with the letters' tokenizer."""
    folder = tmp_path_factory.mktemp("letters")
    model = tiny_model(seed=5, spread=8.0, **shape(16, 2, 2, letters))
    speaking(model, 1.5).save_pretrained(folder)
    letters.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def speaking(model, end: float):
    """Let a random model say no special token but the one that ends an answer, which is made likelier."""
    weight = model.lm_head.weight
    weight[2] *= end
    weight[[0, 1, 3, 4, 5]] = 0
    return model


def answers_of(tokenizer, example: Example) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the ids of a conversation and where each answer, with its end token, starts and stops."""
    messages, places = list(example.messages), []

    def ids(part: list[dict[str, str]], **options: Any) -> list[int]:
        return tokenizer.apply_chat_template(part, return_dict=False, **options)

    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            start = len(ids(messages[:i], add_generation_prompt=True))
            places.append((start, len(ids(messages[: i + 1]))))
    return ids(messages), places


@torch.no_grad()
def by_hand(teacher: CrossTokenizerTeacher, student_tokenizer, example: Example) -> list[Tensor | None]:
    """Return the teacher's log-probabilities beside each of the student's response tokens; None where it has none."""
    ids, theirs = answers_of(teacher.tokenizer, example)
    logp = teacher.model(input_ids=torch.tensor([ids])).logits[0, :, : len(teacher.tokenizer)].log_softmax(-1)
    made = []
    for (start, stop), (first, last) in zip(answers_of(student_tokenizer, example)[1], theirs, strict=True):
        made += [logp[first + i - 1] if first + i < last else None for i in range(stop - start)]
    return made


def teacher_logp(teacher: CrossTokenizerTeacher, batch) -> Tensor:
    count = len(batch.target)
    return teacher.signal(batch).inputs(slice(None), torch.zeros(count, 3), batch.target, 1.0)[1]


@pytest.mark.parametrize("student", ["words", "letters"])
def test_the_i_th_response_token_is_aligned_with_the_i_th(student, pair, examples):
    chosen = [*examples[:7], MULTI_TURN]
    teacher, encoded, _ = pair(chosen, student)
    rows = [7, 3, 0, 6, 3]
    logp = teacher_logp(teacher, collate(encoded, rows, teacher.student_tokenizer.pad_token_id))
    expected = [value for row in rows for value in by_hand(teacher, teacher.student_tokenizer, chosen[row])]
    assert logp.shape == (len(expected), len(teacher.tokenizer))
    for ours, theirs in zip(logp, expected, strict=True):
        if theirs is None:
            assert ours.exp().sum() == 0
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    missing = sum(value is None for value in expected)
    assert (missing > 0) == (student == "letters")
    assert missing < len(expected)


def test_tokens_through_the_teacher_are_counted_in_its_own(pair, examples):
    teacher, encoded, own = pair(examples[:8])
    teacher_logp(teacher, collate(encoded, [1, 5], 0))
    assert teacher.cost["teacher_tokens"] == own.lengths[[1, 5]].sum() != encoded.lengths[[1, 5]].sum()


def test_sequences_that_were_not_paired_are_refused(tiny_model, tokenizer, letters, encoded):
    teacher = CrossTokenizerTeacher(tiny_model(**shape(16, 2, 2, letters)), letters, tokenizer)
    with pytest.raises(ValueError, match="must be paired"):
        teacher.signal(collate(encoded, [0], 0))


def test_past_the_end_of_the_teachers_answer_only_cross_entropy_remains(pair):
    teacher, encoded, _ = pair([MULTI_TURN], student="letters")
    batch = collate(encoded, [0], 0)
    missing = torch.tensor([value is None for value in by_hand(teacher, teacher.student_tokenizer, MULTI_TURN)])
    width = len(teacher.student_tokenizer)
    logits = torch.randn(len(batch.target), width, generator=torch.Generator().manual_seed(2)).requires_grad_()
    inputs = teacher.signal(batch).inputs(slice(None), logits, batch.target, 1.0)
    values = get_loss("sorted_l1", weight=1.5).per_token(LossInputs(*inputs))
    plain = torch.nn.functional.cross_entropy(logits, batch.target, reduction="none")
    torch.testing.assert_close(values[missing], plain[missing])
    assert (values[~missing] > plain[~missing] + 0.01).all()
    grad, expected = (torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (values, plain))
    torch.testing.assert_close(grad[missing], expected[missing])
    assert ((grad - expected)[~missing].abs().amax(-1) > 1e-4).all()


def test_the_distance_of_sorted_probabilities_is_that_of_the_teachers_own_row(pair, examples):
    teacher, encoded, _ = pair(examples[:6])
    rows = [4, 1]
    batch = collate(encoded, rows, 0)
    theirs = [value for row in rows for value in by_hand(teacher, teacher.student_tokenizer, examples[row])]
    logits = torch.randn(len(batch.target), 85, generator=torch.Generator().manual_seed(2))
    values = get_loss("sorted_l1", weight=2.0).per_token(
        LossInputs(*teacher.signal(batch).inputs(slice(None), logits, batch.target, 1.0))
    )
    for value, logp, own, label in zip(values, theirs, logits.log_softmax(-1), batch.target, strict=True):
        assert logp is not None
        p, q = (sorted(side.exp().tolist(), reverse=True) for side in (logp, own))
        p += [0.0] * (len(q) - len(p))
        q += [0.0] * (len(p) - len(q))
        distance = sum(abs(x - y) for x, y in zip(p, q, strict=True))
        assert value.item() == pytest.approx(2 * distance - own[label].item(), rel=1e-4)


# answers across tokenizers --------------------------------------------------------------------------------------------


@pytest.fixture
def talkative(pair, examples):
    """Make a cross-tokenizer teacher that ends some of its answers and not others."""

    def make(student="words"):
        teacher, encoded, own = pair(examples[:10], student, spread=8.0)
        speaking(teacher.model, 1.4 if student == "words" else 2.0)
        return teacher, encoded, own

    return make


@pytest.mark.parametrize("student", ["words", "letters"])
def test_answers_are_the_teachers_texts_in_the_students_tokens(student, talkative):
    teacher, encoded, own = talkative(student)
    rows, limit = list(range(10)), 6
    batch = collate(encoded, rows, 0)
    made = teacher.generate(batch, rows, [limit] * 10, Sampling(0), torch.Generator())
    ends = []
    for row, answer in zip(rows, made.tokens, strict=True):
        start = own.supervised_of(row).argmax()
        prompt = torch.from_numpy(own.ids_of(row)[:start]).long()[None]
        ids = teacher.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=4 * limit,
            suppress_tokens=list(range(teacher.rows, teacher.rows + 7)),
        )[0, prompt.shape[1] :].tolist()
        ended = ids[-1] == teacher.tokenizer.eos_token_id
        text = teacher.tokenizer.decode([token for token in ids if token > 5])
        again = teacher.student_tokenizer(text, add_special_tokens=False)["input_ids"]
        assert answer == (again + [teacher.student_tokenizer.eos_token_id] * ended)[:limit]
        ends.append(ended and len(again) < limit)
    assert set(ends) == {True, False}
    assert made.generated_tokens > sum(map(len, made.tokens))


def test_rollout_teacher_works_across_tokenizers(talkative, tokenizer):
    teacher, encoded, _ = talkative()
    context = RolloutContext(torch.nn.Linear(1, 1), teacher, tokenizer, torch.Generator(), max_length=48)
    batch, rollout = collate(encoded, list(range(10)), 0), get_rollout("teacher", max_new_tokens=6, train_on_cut=True)
    made = rollout(batch, context)
    expected = teacher.generate(batch, list(range(10)), [6] * 10, Sampling(0), torch.Generator())
    assert made.target.tolist() == [token for answer in expected.tokens for token in answer]
    assert rollout.across_tokenizers


def test_an_engine_generates_in_the_teachers_own_tokens(talkative):
    teacher, encoded, own = talkative()
    batch, asked = collate(encoded, [4, 1], 0), []

    def generate(prompts, max_new_tokens, sampling, generator, vocabulary, head_rows):
        asked.append((prompts, max_new_tokens, vocabulary.eos_token_ids, vocabulary.vocab_size, head_rows))
        return Completions([[7, 8, 2]], [True], 4, [9])

    teacher.engine = SimpleNamespace(generate=generate)
    made = teacher.generate(batch, [1], [6], Sampling(0), torch.Generator())
    start = own.supervised_of(1).argmax()
    assert asked == [([own.ids_of(1)[:start].tolist()], [24], [2], teacher.rows, teacher.rows + 7)]
    assert (made.generated_tokens, made.scored_tokens) == (4, [9])


# whole runs -----------------------------------------------------------------------------------------------------------


def metrics(root: Path, row: dict[str, Any]) -> list[dict[str, float]]:
    file = results.find_run(root, row["run_id"]) / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_uld_trains_across_tokenizers(plain_spec, stage, letter_folder, tmp_path):
    spec = plain_spec(stage("uld", steps=24, batch_size=12), teacher=False) | {"teacher": {"name": letter_folder}}
    lines = metrics(tmp_path, study.run(spec, study="s", root=tmp_path))
    for name in ("kd_loss", "ce_loss"):
        values = [line[name] for line in lines]
        assert sum(values[-3:]) < 0.9 * sum(values[:3])
    distances = [line["kd_loss"] - line["ce_loss"] for line in lines]
    assert min(distances) > 0.01


def test_seqkd_trains_across_tokenizers(plain_spec, stage, letter_folder, tmp_path):
    plain = stage("seqkd", steps=24, batch_size=12, method_options={"max_new_tokens": 5, "train_on_cut": True})
    spec = plain_spec(plain, teacher=False) | {"teacher": {"name": letter_folder}}
    row = study.run(spec, study="s", root=tmp_path)
    values = [line["ce_loss"] for line in metrics(tmp_path, row)]
    assert sum(values[-3:]) < 0.9 * sum(values[:3])


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("kd", {}),
        ("gkd", {}),
        ("skd", {}),
        ("distillm2", {}),
        ("minillm", {}),
        ("kd", {"top_k": 4}),
        ("uld", {"top_k": 4}),
    ],
)
def test_methods_that_compare_token_by_token_are_refused(method, changes, plain_spec, stage, letter_folder, tmp_path):
    spec = plain_spec(stage(method), teacher=False) | {"teacher": {"name": letter_folder} | changes}
    with pytest.raises(InputError, match=r"tokenizers|full distribution"):
        study.run(spec, study="s", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_with_another_tokenizer_is_opened_as_one(letter_folder, teacher_folder, tokenizer):
    def opened(name, **kept):
        return open_teacher(Teacher(name=name, **kept), Models().find(name), tokenizer, 85)

    assert isinstance(opened(letter_folder), CrossTokenizerTeacher)
    assert not isinstance(opened(str(teacher_folder)), CrossTokenizerTeacher)
    with pytest.raises(InputError, match="different tokenizers"):
        opened(letter_folder, top_k=4)
