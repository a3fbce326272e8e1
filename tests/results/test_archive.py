"""The runs of a study in one file are the same runs, and nothing that was changed beside it is lost."""

import os
import tarfile
import threading

import pandas as pd
import pytest

from studykit import results
from studykit.errors import InputError
from studykit.results.archive import ARCHIVE, archive_runs, unpack
from studykit.results.verify import verify


def content(study):
    runs = study / "runs"
    return {str(file.relative_to(runs)): file.read_bytes() for file in runs.rglob("[!.]*") if file.is_file()}


@pytest.fixture
def archived(study):
    """Return an archived study, the content of its runs, and its table."""
    before, frame = content(study), results.load(study)
    archive_runs(study)
    assert not (study / "runs").exists()
    return study, before, frame


def test_runs_come_back_as_they_were(archived):
    study, before, frame = archived
    pd.testing.assert_frame_equal(results.load(study), frame)
    assert content(study) == before
    assert list(verify(study)) == []


def test_the_table_is_read_from_the_index(archived, monkeypatch):
    """Files and folders of an archive are older than any index: no record is read."""
    study, _, frame = archived
    monkeypatch.setattr("studykit.results.table.rows_of", lambda *given: pytest.fail("a record was read"))
    pd.testing.assert_frame_equal(results.load(study), frame)


@pytest.mark.parametrize("read", [results.studies, lambda study: results.load(study.parent), results.cells])
def test_the_runs_are_there_where_a_study_is_read(archived, read):
    study, before, _ = archived
    read(study)
    assert content(study) == before


def test_a_path_that_goes_up_first_is_as_good_as_another(archived, monkeypatch):
    """Notebooks name their results `../results`."""
    study, before, _ = archived
    (study.parent / "notebooks").mkdir()
    monkeypatch.chdir(study.parent / "notebooks")
    results.load(f"../{study.name}")
    assert content(study) == before


def test_an_archive_is_never_replaced_by_fewer_runs(archived):
    study, before, frame = archived
    archive_runs(study)
    (study / "runs").mkdir()
    archive_runs(study)
    pd.testing.assert_frame_equal(results.load(study), frame)
    assert content(study) == before


def test_a_study_without_runs_is_not_archived(tmp_path):
    with pytest.raises(InputError, match="has no runs"):
        archive_runs(results.open_study(tmp_path, "empty"))


def test_links_among_the_runs_are_left_out(study, tmp_path):
    before = content(study)
    (tmp_path / "elsewhere").mkdir()
    (study / "runs" / "0123456789ab").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    archive_runs(study)
    unpack(study)
    assert content(study) == before
    assert (tmp_path / "elsewhere").is_dir()


def test_one_run_is_found_without_the_others_having_been_read(archived):
    study, before, frame = archived
    folder = results.run_folder(study, frame["run_id"][0])
    assert (folder / "record.json").read_bytes() == before[f"{folder.name}/record.json"]
    assert results.find_run(study.parent, folder.name) == folder


def test_the_same_runs_are_the_same_archive(archived):
    study, *_ = archived
    first = (study / ARCHIVE).read_bytes()
    unpack(study)
    archive_runs(study)
    assert (study / ARCHIVE).read_bytes() == first


def test_what_was_changed_or_added_since_stays(archived):
    study, before, _ = archived
    unpack(study)
    one, other, *_ = sorted({name.split("/")[0] for name in before})
    (study / "runs" / one / "record.json").write_bytes(b"changed")
    (study / "runs" / one / "tuning").mkdir()
    (study / "runs" / one / "tuning" / "new.json").write_bytes(b"new")
    (study / "runs" / other / "spec.json").unlink()
    os.utime(study / ARCHIVE)  # as after a pull
    unpack(study)
    assert content(study) == before | {f"{one}/record.json": b"changed", f"{one}/tuning/new.json": b"new"}


def test_several_readers_unpack_once(archived):
    study, before, _ = archived
    readers = [threading.Thread(target=unpack, args=(study,)) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert content(study) == before


def test_a_damaged_archive_is_refused_in_one_line(archived):
    study, *_ = archived
    data = (study / ARCHIVE).read_bytes()
    (study / ARCHIVE).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"runs\.tar\.xz cannot be unpacked .* get the file again"):
        results.load(study)


def test_a_file_that_leads_elsewhere_is_refused(archived, tmp_path):
    study, *_ = archived
    (tmp_path / "evil").write_text("x")
    with tarfile.open(study / ARCHIVE, "w:xz") as archive:
        archive.add(tmp_path / "evil", "runs/../../evil")
    with pytest.raises(InputError, match="is no file of a run"):
        unpack(study)
