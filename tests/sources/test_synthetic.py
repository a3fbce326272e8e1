"""Answers that a teacher writes: kept on disk by content, filtered, and counted."""

import json

import pytest

from studykit import study
from studykit.cli import main
from studykit.data import Inputs, writing
from studykit.data.writing_cost import charge
from studykit.errors import InputError
from studykit.files import cache_folder, read_lines
from studykit.sources import load_examples
from studykit.spec import Data, RunSpec
from studykit.study.pin import pin

TEACHER = "lexicon/teacher-a"


@pytest.fixture
def data(data_file):
    """Make data whose prompts are twelve of the shared conversations."""

    def make(budget=None, prompts=None, **options):
        source = {"source": "jsonl", "options": {"path": str(data_file)}, "budget": {"examples": 12}}
        given = {"prompts": source | (prompts or {}), "teacher": TEACHER, "max_new_tokens": 8} | options
        return Data.model_validate({"source": "synthetic", "options": given} | ({"budget": budget} if budget else {}))

    return make


@pytest.fixture
def generated(monkeypatch):
    """Count the prompts that are answered anew."""
    counts, generate = [], writing.generate

    def counting(models, prompts, *arguments):
        counts.append(len(prompts))
        return generate(models, prompts, *arguments)

    monkeypatch.setattr(writing, "generate", counting)
    return counts


@pytest.fixture
def interrupted(monkeypatch, tmp_path):
    """Write five answers at a time, and interrupt a writer in its second five."""
    monkeypatch.setattr(writing, "_CHUNK", 5)

    def interrupt(wanted):
        write, started = writing._write_chunk, []

        def breaking(*arguments):
            started.append(arguments)
            if len(started) == 2:
                raise KeyboardInterrupt
            return write(*arguments)

        monkeypatch.setattr(writing, "_write_chunk", breaking)
        with pytest.raises(KeyboardInterrupt):
            Inputs(tmp_path).pool(wanted)

    return interrupt


def texts(pool):
    return {example.id: example.answer for example in pool.examples}


def test_the_answers_are_the_teachers_and_are_written_once(data, generated, empty_cache, tmp_path):
    first = Inputs(tmp_path).pool(data())
    assert {example.annotator for example in first.examples} == {TEACHER}
    assert {example.source for example in first.examples} <= {"words", "rare"}
    assert sum(generated) == 12
    again = Inputs(tmp_path).pool(data(min_tokens=3))  # other filters, the same answers
    assert sum(generated) == 12
    assert set(texts(again).items()) <= set(texts(first).items())
    Inputs(tmp_path).pool(data(temperature=1.0))
    assert sum(generated) == 24


def test_the_seed_draws_other_answers_and_the_same_seed_the_same(data, empty_cache, tmp_path, monkeypatch):
    sampled = {"temperature": 1.5, "keep_cut": True, "drop_duplicates": False}
    one, other = (texts(Inputs(tmp_path).pool(data(seed=seed, **sampled))) for seed in (0, 1))
    monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / "another"))
    assert texts(Inputs(tmp_path).pool(data(seed=0, **sampled))) == one != other


def test_where_each_answer_comes_from_is_on_disk_and_its_filter_with_it(data, empty_cache, tmp_path):
    pool = Inputs(tmp_path).pool(data(max_new_tokens=6, min_tokens=5, min_logp=-0.05))
    written = pool.written or {}
    lines, damaged = read_lines(cache_folder("synthetic") / written["provenance"])
    assert (len(lines), damaged) == (written["answers"], 0) == (12, 0)
    assert {line["id"] for line in lines if line["kept"]} == set(texts(pool))
    reasons = [line["dropped_by"] for line in lines if not line["kept"]]
    assert {name: reasons.count(name) for name in reasons} == written["dropped"]
    assert set(reasons) == {"ended", "min_tokens", "min_logp"}
    assert lines[0]["teacher_sha256"] == Inputs(tmp_path).models.find(TEACHER).sha256
    assert (lines[0]["seed"], lines[0]["temperature"], lines[0]["max_new_tokens"]) == (0, 0.0, 6)
    assert written["ended"] + written["cut"] == 12


def test_unlikely_answers_are_dropped(data, empty_cache, tmp_path):
    every = Inputs(tmp_path).pool(data(temperature=1.0, keep_cut=True))
    likely = Inputs(tmp_path).pool(data(temperature=1.0, keep_cut=True, min_logp=-0.3))
    assert likely.written
    assert likely.written["dropped"]["min_logp"] == len(every.examples) - len(likely.examples) > 0


def test_the_teacher_is_shown_other_prompts_with_their_answers(data, data_file, empty_cache, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(writing, "_write_all", lambda model, conversations, *rest: asked.extend(conversations))
    with pytest.raises(ValueError, match="shorter"):  # zip: nothing was written
        Inputs(tmp_path).pool(data(few_shot=2))
    by_id = {example.id: example for example in load_examples("jsonl", "train", {"path": str(data_file)})}
    for example in asked:
        assert len(example.messages) == 6
        assert example.messages[-2:] == by_id[example.id].messages
        assert example.messages[0] not in example.messages[4:]
    shown = {example.messages[:4] for example in map(_frozen, asked)}
    assert len(shown) == 3  # the same two, or the third beside one of them


def _frozen(example):
    from dataclasses import replace

    return replace(example, messages=tuple(turn["content"] for turn in example.messages))


def test_prompts_need_no_answer(data, empty_cache, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Pronounce c a t", "completion": ""}\n', encoding="utf-8")
    prompts = {"options": {"path": str(file)}, "budget": {}}
    assert all(texts(Inputs(tmp_path).pool(data(prompts=prompts))).values())


def test_an_interrupted_writer_goes_on_with_the_same_answers(
    data, generated, interrupted, empty_cache, tmp_path, monkeypatch
):
    sampled = data(temperature=1.5, keep_cut=True, drop_duplicates=False)
    whole = texts(Inputs(tmp_path).pool(sampled))
    monkeypatch.setenv("STUDYKIT_CACHE", str(tmp_path / "another"))
    interrupted(sampled)
    before = sum(generated)
    assert texts(Inputs(tmp_path).pool(sampled)) == whole
    assert sum(generated) == before + 7


def test_a_run_trains_on_them_and_the_manifest_says_whose_they_are(data, stage, plain_spec, empty_cache, tmp_path):
    plain = plain_spec(stage(data=data(budget={"examples": 8}).model_dump(exclude_none=True), steps=2), teacher=False)
    row = study.run(plain, study="s", root=tmp_path)
    manifest = json.loads((tmp_path / "s" / "runs" / row["run_id"] / "record.json").read_text())["data"][0]
    assert manifest["trained_on"] == {TEACHER: 8}
    assert manifest["written"]["answers"] == 12
    assert pin(RunSpec.parse(plain), Inputs(tmp_path)).run_id == row["run_id"]


def record_of(row, root):
    return json.loads((root / "s" / "runs" / row["run_id"] / "record.json").read_text())


def test_the_answers_count_for_the_first_run_that_trains_on_them(data, stage, plain_spec, empty_cache, tmp_path):
    drawn = data(budget={"examples": 8}).model_dump(exclude_none=True)
    one, two = (plain_spec(stage(data=drawn, steps=2), stage(data=drawn, steps=n), teacher=False) for n in (1, 2))
    mixed = plain_spec(stage(mix=[{"data": drawn, "weight": 0.5}], steps=2), teacher=False)
    pin(RunSpec.parse(two), Inputs(tmp_path))  # as the check of a batch does: the answers are written here
    first, second, third = (study.run(plain, study="s", root=tmp_path) for plain in (one, two, mixed))
    written = record_of(first, tmp_path)["data"][1]["written"]
    assert first["synthetic_tokens"] == written["generated_tokens"] > 0  # once, though two stages train on them
    assert first["synthetic_prompt_tokens"] > 0
    assert first["synthetic_s"] > 0
    assert "counts_for_run" not in written
    assert second["cached_synthetic_tokens"] == third["cached_synthetic_tokens"] == written["generated_tokens"]
    for row in (second, third):
        assert row.get("synthetic_tokens") is None
    for manifest in (record_of(second, tmp_path)["data"][0], record_of(third, tmp_path)["data"][0]["mix"][1]):
        assert manifest["written"]["counts_for_run"] == first["run_id"]
    again = study.run(one, study="another", root=tmp_path)
    assert again["synthetic_tokens"] == first["synthetic_tokens"]


def test_an_interrupted_writer_counts_what_both_processes_wrote(data, interrupted, empty_cache, tmp_path):
    interrupted(data())
    written = Inputs(tmp_path).pool(data()).written or {}
    cost, _ = charge("000000000000", [{"written": written}])
    assert cost["synthetic_tokens"] == written["generated_tokens"]


def test_a_pool_that_runs_dry_says_which_filter_dropped_how_many(data, stage, plain_spec, empty_cache, tmp_path):
    for options, message in (
        ({"max_new_tokens": 4}, r"12 examples is larger than the pool of \d+ .*of 12 answers were dropped \(ended \d+"),
        (
            {"min_tokens": 100, "keep_cut": True},
            r"all 12 answers of 'lexicon/teacher-a' were dropped \(min_tokens 12\)",
        ),
    ):
        drawn = data(budget={"examples": 12}, **options).model_dump(exclude_none=True)
        with pytest.raises(InputError, match=message):
            pin(RunSpec.parse(plain_spec(stage(data=drawn))), Inputs(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"few_shot": 12}, "few_shot=12 needs more prompts than the 12"),
        ({"temperature": -1.0}, "temperature must be greater than or equal to 0"),
        ({"teachr": "a"}, "did you mean 'teacher'"),
        ({"prompts": {"sourc": "jsonl"}}, "prompts: sourc"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, message, data, tmp_path):
    given = data()
    wrong = given.model_copy(update={"options": given.options | options})
    with pytest.raises(InputError, match=message):
        Inputs(tmp_path).pool(wrong)


def test_it_is_listed_with_its_options(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["studykit", "list", "sources", "synthetic"])
    with pytest.raises(SystemExit):
        main()
    assert "few_shot = 0" in capsys.readouterr().out
