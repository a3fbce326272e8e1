"""Answers and likelihoods of held-out items: the same in batches as one by one, and as the model's own."""

import json
from dataclasses import replace

import pytest
import torch

from studykit.chat import encode, encode_prompts
from studykit.errors import InputError
from studykit.evaluation import answer_greedily, answer_items, held_out, item_of, item_of_line, line_of_item
from studykit.likelihood import predict, reference_nll
from studykit.models import projection
from studykit.models.loading import load_teacher
from studykit.models.names import Models
from studykit.scorers import metrics_of, score_items, weighted_means, without_teacher
from studykit.sources import Example
from studykit.spec import Evaluation


@pytest.fixture
def evaluation(data_file):
    """Make an evaluation on the shared conversations."""

    def make(**changes):
        data = {"source": "jsonl", "options": {"path": str(data_file)}}
        return Evaluation.model_validate({"data": data, "max_new_tokens": 7, **changes})

    return make


@pytest.fixture
def model(tiny_model, tokenizer):
    """Return a random model that answers differently to different prompts, and often ends."""
    model = tiny_model(seed=11, spread=40.0).eval()
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(4.0 if parameter.dim() > 1 else 1.0)
        model.lm_head.weight[tokenizer.eos_token_id] *= 3
    return model


def answer_slowly(model, prompt: list[int], end: int, limit: int) -> list[int]:
    """Decode greedily without cache, padding or batch."""
    ids = list(prompt)
    while len(ids) < len(prompt) + limit:
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == end:
            break
    return ids[len(prompt) :]


def test_answers_are_greedy_and_do_not_depend_on_the_batch(model, tokenizer, examples, evaluation):
    expected = []
    for prompt in encode_prompts(examples, tokenizer):
        ids = answer_slowly(model, prompt, tokenizer.eos_token_id, 7)
        expected.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
    assert len(set(expected)) > 5
    assert len({len(answer.split()) for answer in expected}) > 1
    for batch_size in (1, 7, 40):
        answers = answer_greedily(model, tokenizer, examples, evaluation(batch_size=batch_size))
        assert [answer.text for answer in answers] == expected


def test_an_answer_ends_at_the_end_token_and_at_the_limit(model, tokenizer, examples, evaluation):
    """A head that always says one thing, by a bias alone."""
    answers = {}
    for word in ("K", tokenizer.eos_token):
        bias = torch.zeros(model.lm_head.out_features)
        bias[tokenizer.convert_tokens_to_ids(word)] = 1e4
        model.lm_head.bias = torch.nn.Parameter(bias)
        answers[word] = answer_greedily(model, tokenizer, examples[:3], evaluation())
    assert answers == {"K": [("K K K K K K K", True)] * 3, tokenizer.eos_token: [("", False)] * 3}


def test_likelihood_is_the_models_own_loss(model, tokenizer, examples):
    encoded = encode(examples, tokenizer, 64)
    for batch_size in (1, 6, 40):
        ours = reference_nll(model, encoded, tokenizer, batch_size)
        for index in range(len(examples)):
            ids = torch.from_numpy(encoded.ids_of(index).astype("int64"))[None]
            labels = ids.masked_fill(~torch.from_numpy(encoded.supervised_of(index))[None], -100)
            own = model(input_ids=ids, labels=labels).loss.item() * int(encoded.response_tokens[index])
            assert ours[index] == pytest.approx(own, rel=1e-4)


def test_likelihood_leaves_out_rows_that_belong_to_no_token(model, tokenizer, examples):
    encoded = encode(examples, tokenizer, 64)
    expected = reference_nll(model, encoded, tokenizer, 6)
    rows = model.lm_head.out_features
    model.resize_token_embeddings(rows + 40, mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight[rows:] = 5 * model.lm_head.weight[:40]
    assert reference_nll(model, encoded, tokenizer, 6) == pytest.approx(expected, rel=1e-5)


def test_likelihood_in_chunks_is_that_of_the_whole(model, tokenizer, examples, monkeypatch):
    encoded = encode(examples, tokenizer, 64)
    expected = reference_nll(model, encoded, tokenizer, 6)
    sizes = []
    project = projection.project
    monkeypatch.setattr(
        projection, "project", lambda hidden, *rest: sizes.append(len(hidden)) or project(hidden, *rest)
    )
    monkeypatch.setattr(projection, "_CHUNK_BYTES", 4 * model.lm_head.out_features * 5)
    assert reference_nll(model, encoded, tokenizer, 6) == pytest.approx(expected, rel=1e-5)
    assert max(sizes) == 5
    assert len(sizes) > 5


def test_items_carry_what_scorers_need(model, tokenizer, examples, evaluation):
    items = answer_items(model, tokenizer, evaluation(batch_size=4), examples[:10])
    scores = score_items(items, evaluation().scorers)
    assert [item.id for item in items] == [e.id for e in examples[:10]]
    assert [item.reference for item in items] == [e.answer for e in examples[:10]]
    assert items[0].prompt == examples[0].messages[0]["content"]
    assert [item.reference_tokens for item in items] == [len(e.answer.split()) + 1 for e in examples[:10]]
    total = sum(item.reference_nll for item in items) / sum(item.reference_tokens for item in items)
    assert weighted_means(scores)["nll"] == pytest.approx(total)


def test_a_line_has_all_that_scorers_read(model, tokenizer, examples, evaluation):
    items = answer_items(model, tokenizer, evaluation(), examples[:4])
    scores = score_items(items, evaluation().scorers)
    lines = [json.loads(json.dumps(line_of_item(item, score))) for item, score in zip(items, scores, strict=True)]
    assert [item_of_line(line) for line in lines] == items
    assert set(lines[0]["scores"]) == set(evaluation().scorers)
    del lines[0]["reference_nll"]  # as until schema 2
    assert item_of_line(lines[0]) is None


def test_nothing_is_generated_for_likelihood_alone(model, tokenizer, examples, evaluation, monkeypatch):
    monkeypatch.setattr("studykit.evaluation.generate", None)
    items = answer_items(model, tokenizer, evaluation(scorers=["nll"]), examples[:3])
    assert [item.answer for item in items] == [None] * 3


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in(training, model, tokenizer, examples, evaluation):
    model.train(training)
    answer_items(model, tokenizer, evaluation(), examples[:2])
    assert model.training is training
    assert all(p.grad is None for p in model.parameters())


def test_more_items_than_there_are_is_refused(examples, evaluation):
    assert len(held_out(evaluation(items=40), examples)) == 40
    assert len(held_out(evaluation(), examples)) == 40
    with pytest.raises(InputError, match="asks for 41 items; the split has 40"):
        held_out(evaluation(items=41), examples)


def test_raw_texts_cannot_be_answered(evaluation):
    texts = [Example("text", ({"role": "text", "content": "K AE T"},), "texts", "human", "train")]
    assert held_out(evaluation(scorers=["nll"]), texts) == texts
    with pytest.raises(InputError, match="raw texts, which ask for no answer"):
        held_out(evaluation(), texts)


def own_loss(model, encoded, index):
    """Return the model's own loss on one sequence, summed, and its predictions at the supervised tokens."""
    ids = torch.from_numpy(encoded.ids_of(index).astype("int64"))
    supervised = torch.from_numpy(encoded.supervised_of(index))
    with torch.no_grad():
        logp = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)[supervised[1:]]
    return logp, ids[1:][supervised[1:]]


def test_predictions_are_those_of_the_model_at_every_token(model, tokenizer, examples):
    encoded = encode(examples, tokenizer, 64)
    found = predict(model, encoded, tokenizer, 6)
    assert [p.nll for p in found] == reference_nll(model, encoded, tokenizer, 6)
    for index, prediction in enumerate(found):
        logp, target = own_loss(model, encoded, index)
        assert prediction.target.tolist() == target.tolist()
        assert prediction.likeliest.tolist() == logp.argmax(-1).tolist()
        assert prediction.confidence == pytest.approx(logp.amax(-1).exp().numpy(), rel=1e-4)


def test_every_choice_is_read_as_the_answer(model, tokenizer, examples, evaluation):
    choices = ("K AE T", "D", "K AE")
    asked = [replace(e, messages=(*e.messages[:-1], {"role": "assistant", "content": "D"})) for e in examples[:5]]
    asked = held_out(evaluation(scorers=["choice", "choice_per_token"], choices=choices), asked)
    items = answer_items(model, tokenizer, evaluation(scorers=["choice"], batch_size=4), asked)
    scores = score_items(items, ["choice"])
    for index, item in enumerate(items):
        messages = [(*asked[index].messages[:-1], {"role": "assistant", "content": choice}) for choice in choices]
        encoded = encode([replace(asked[index], messages=m, choices=()) for m in messages], tokenizer, 64)
        own = [own_loss(model, encoded, n) for n in range(3)]
        nll = [-float(logp.gather(1, target[:, None]).sum()) for logp, target in own]
        assert item.choice_nll == pytest.approx(nll, rel=1e-4)
        assert item.choice_tokens == (4, 2, 3)
        assert scores[index]["choice"].value == (min(nll) == nll[1])
        assert item.answer is None


def test_an_example_may_name_its_own_choices_and_all_answers_may_be_labels(examples, evaluation):
    [first, second] = held_out(evaluation(scorers=["choice"], choices="references"), [*examples[:2]])
    assert first.choices == second.choices == ("K", "K AE")
    own = replace(examples[0], choices=("K", "T"))
    assert held_out(evaluation(scorers=["choice"], choices=["K AE", "D"]), [own, examples[1]])[0].choices == ("K", "T")


def test_the_student_agrees_with_itself_and_the_other_model_runs_once(
    model, tokenizer, examples, evaluation, teacher_folder, empty_cache, monkeypatch
):
    settings, teacher = evaluation(scorers=["teacher_agreement", "nll"]), Models().find(str(teacher_folder))
    itself = load_teacher(teacher)
    items = answer_items(itself, tokenizer, settings, examples[:8], teacher=teacher)
    assert metrics_of(items, score_items(items, settings.scorers), settings.scorers)["teacher_agreement"] == 1
    monkeypatch.setattr("studykit.likelihood.load_teacher", None)
    items = answer_items(model, tokenizer, settings, examples[:8], teacher=teacher)
    encoded, agree, count = encode(examples[:8], tokenizer, 64), 0, 0
    for index in range(8):
        logp, theirs = own_loss(model, encoded, index)[0], own_loss(itself, encoded, index)[0]
        agree, count = agree + int((logp.argmax(-1) == theirs.argmax(-1)).sum()), count + len(logp)
    assert 0 < agree < count
    measured = metrics_of(items, score_items(items, settings.scorers), settings.scorers)
    assert measured["teacher_agreement"] == pytest.approx(agree / count)
    assert without_teacher(settings.scorers) == ["nll"]  # a teacher is not compared with itself


def test_a_line_of_the_file_holds_all_that_scorers_read(model, tokenizer, examples, evaluation, teacher_folder):
    names = ["teacher_agreement", "calibration_error", "exact_match"]
    settings, teacher = evaluation(scorers=names, choices=["K", "D"]), Models().find(str(teacher_folder))
    items = answer_items(
        model, tokenizer, settings, held_out(evaluation(choices=["K", "D"]), examples[:3]), teacher=teacher
    )
    lines = [json.loads(json.dumps(line_of_item(item))) for item in items]
    read = [item for line in lines if (item := item_of_line(line))]
    assert read == items
    assert score_items(read, names) == score_items(items, names)


def test_bytes_are_those_of_every_supervised_turn(examples):
    messages = (
        {"role": "user", "content": "ä"},
        {"role": "assistant", "content": "äö"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "cc", "weight": 0},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "ü"},
    )
    assert item_of(replace(examples[0], messages=messages)).reference_bytes == 6
    assert item_of(replace(examples[0], messages=({"role": "text", "content": "äö"},))).reference_bytes == 4
