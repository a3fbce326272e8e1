"""The data with some tokens of its prompts dropped."""

from rows import PAD, equal, rows_of

from studykit.chat import encode
from studykit.collate import collate
from studykit.losses import Author
from studykit.models.names import Models
from studykit.rollouts import get_rollout
from studykit.sources import Example

REFUSED = {"prompt_dropout": (-0.1, 1.0)}
METHOD_OPTIONS = {"prompt_dropout": 0.3}


def test_its_share_of_ordinary_prompt_tokens_is_dropped(batch, context, tokenizer):
    rollout, ours, special = (
        get_rollout("prompt_dropout", prompt_dropout=0.3),
        context(),
        set(tokenizer.all_special_ids),
    )
    before = after = 0
    for _ in range(60):
        given = batch()
        made = rollout(given, ours)
        for (prompt, answer), (kept, same) in zip(rows_of(given), rows_of(made), strict=True):
            assert same == answer
            assert [token for token in kept if token in special] == [token for token in prompt if token in special]
            left = iter(prompt)
            assert all(token in left for token in kept)  # in their order
            before += sum(token not in special for token in prompt)
            after += sum(token not in special for token in kept)
        assert made.author is not None
        assert made.author.tolist() == [Author.DATA] * 5
        assert made.keys == []
    assert abs(before - after - 0.3 * before) < 5 * (before * 0.21) ** 0.5


def test_dropping_nothing_is_the_data(batch, context):
    assert rows_of(get_rollout("prompt_dropout", prompt_dropout=0.0)(batch(), context())) == rows_of(batch())


def test_it_costs_nothing_and_follows_the_seed(batch, context):
    rollout, ours = get_rollout("prompt_dropout", prompt_dropout=0.5), context(1)
    first, again, other = rollout(batch(), ours), rollout(batch(), context(1)), rollout(batch(), context(2))
    assert equal(first, again)
    assert not equal(first, other)
    assert ours.cost == {}


def test_no_more_is_supervised_than_in_the_data(context):
    """Many chat templates put something after the end token, such as Qwen's newline: it is never supervised."""
    own = Models().find("lexicon/tokenizer").tokenizer
    own.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|> 9 {% endfor %}"
        "{% if add_generation_prompt %}<|assistant|> {% endif %}"
    )
    messages = ({"role": "user", "content": "Spell K AE T"}, {"role": "assistant", "content": "c a t"})
    encoded = encode([Example("e", messages, "s", "human", "train")], own, 64)
    given = collate(encoded, [0], PAD)
    made = get_rollout("prompt_dropout", prompt_dropout=0.5)(given, context())
    assert own.convert_ids_to_tokens(given.target.tolist()) == ["c", "a", "t", "<|end|>"]
    assert own.convert_ids_to_tokens(made.target.tolist()) == ["c", "a", "t", "<|end|>"]
