"""Answers and likelihoods of held-out items: the same in batches as one by one, and as the model's own."""

import json

import pytest
import torch

from studykit.chat import encode, encode_prompts
from studykit.errors import InputError
from studykit.evaluation import answer_greedily, answer_items, held_out, item_of_line, line_of_item
from studykit.likelihood import reference_nll
from studykit.models import projection
from studykit.scorers import score_items, weighted_means
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
        assert answer_greedily(model, tokenizer, examples, evaluation(batch_size=batch_size)) == expected


def test_an_answer_ends_at_the_end_token_and_at_the_limit(model, tokenizer, examples, evaluation):
    """A head that always says one thing, by a bias alone."""
    answers = {}
    for word in ("K", tokenizer.eos_token):
        bias = torch.zeros(model.lm_head.out_features)
        bias[tokenizer.convert_tokens_to_ids(word)] = 1e4
        model.lm_head.bias = torch.nn.Parameter(bias)
        answers[word] = answer_greedily(model, tokenizer, examples[:3], evaluation())
    assert answers == {"K": ["K K K K K K K"] * 3, tokenizer.eos_token: [""] * 3}


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
