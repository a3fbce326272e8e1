"""What was measured, on disk: the only room that knows the layout. Torch-free.

    frame = load("results")                      # one row per run and evaluation, all studies under the folder
    frame = load("results/lexicon")              # one study
    frame = primary(frame)                       # one row per run
    read_items(run_folder("results/lexicon", run_id), eval_id)

A study is a folder with `study.json`. Each run has a folder named by the hash of what is trained, and in it one for
each evaluation, named by the hash of what is measured:

    results/<study>/study.json
    results/<study>/runs/<run_id>/spec.json          written first
                                  status.json        what it is doing; there only while it has no record
                                  metrics.jsonl      training curves, one line per log
                                  model/             weights, unless they were removed
                                  record.json        written last in the training: its existence means trained
                                  evaluations/<eval_id>/evaluation.json   written first
                                                        items.jsonl       each item with its answer and scores
                                                        record.json       written last: its existence means measured
                                  tuning/<tuning>.json    how its settings were chosen, where a tuning chose them
    results/<study>/runs.tar.xz                      all of runs/ in one file: unpacked where the study is read
    results/<study>/arms.jsonl                       names of runs in comparisons, and which ones are trials of tunings
    results/<study>/signals/<run_id>.json            size and quality of a run's cached teacher, where measured
    results/<study>/trackers/<run_id>.json           which lines of its curve trackers have, where some follow it
    results/<study>/cells/<cell_id>/cell.json        which notebook a cell of a batch executes, and how
                                    notebook.ipynb   executed
                                    record.json      written last
    results/<study>/index.jsonl                      derived; rebuilt whenever it is missing

A run of an older schema keeps its folder and id, and has one evaluation in the same files. Run again, it gets today's
id, and the table shows the new run alone.

`docs/records.md` lists the keys of the records, which are the fields of `RunRecord`, `EvaluationRecord`, `CellSpec`
and `CellRecord`.

**Options are columns.** A field of the specification in which a run differs from the default is a column of `load`,
named after the field: `learning_rate`, `batch_size`, `teacher_top_k`, `lora_r`, `student_attn_implementation`, a key of
a mapping after a dot (`method_options.beta`, `source_options.tasks`), and where stages differ each stage's own
(`stage_2.learning_rate`). `studykit.results.options` has the whole rule. Runs may be averaged if `identity_columns`
agree, which is what `configurations` compares.
"""

from studykit.files import read_lines, write_json
from studykit.files.leases import Held
from studykit.results.cells import CellState, cells, read_log, read_notebook
from studykit.results.curves import read_metrics
from studykit.results.evaluations import (
    StoredEvaluation,
    find_evaluation,
    primary,
    read_evaluations,
    read_item_file,
    read_items,
)
from studykit.results.item_scores import read_item_scores
from studykit.results.layout import find_run, is_run_id, is_study, open_study, run_folder, studies
from studykit.results.options import (
    HASHES,
    configurations,
    identity_columns,
    option_columns,
    schedule_columns,
    settings,
)
from studykit.results.record import (
    CellRecord,
    CellSpec,
    ChatRecord,
    EvaluationRecord,
    ItemCounts,
    RunRecord,
    Token,
    is_done,
    read_record,
    read_spec,
)
from studykit.results.signals import read_signals, write_signal
from studykit.results.table import IDENTITY_COLUMNS, damaged_records, fingerprint, load, metric_columns, rebuild_index
from studykit.results.tuning import Trial, TuningRecord, in_tuning, read_tunings, tuning_columns
from studykit.results.verify import damaged_files, verify
from studykit.results.writer import EvaluationWriter, Purpose, RunWriter, holding

__all__ = [
    "HASHES",
    "IDENTITY_COLUMNS",
    "CellRecord",
    "CellSpec",
    "CellState",
    "ChatRecord",
    "EvaluationRecord",
    "EvaluationWriter",
    "Held",
    "ItemCounts",
    "Purpose",
    "RunRecord",
    "RunWriter",
    "StoredEvaluation",
    "Token",
    "Trial",
    "TuningRecord",
    "cells",
    "configurations",
    "damaged_files",
    "damaged_records",
    "find_evaluation",
    "find_run",
    "fingerprint",
    "holding",
    "identity_columns",
    "in_tuning",
    "is_done",
    "is_run_id",
    "is_study",
    "load",
    "metric_columns",
    "open_study",
    "option_columns",
    "primary",
    "read_evaluations",
    "read_item_file",
    "read_item_scores",
    "read_items",
    "read_lines",
    "read_log",
    "read_metrics",
    "read_notebook",
    "read_record",
    "read_signals",
    "read_spec",
    "read_tunings",
    "rebuild_index",
    "run_folder",
    "schedule_columns",
    "settings",
    "studies",
    "tuning_columns",
    "verify",
    "write_json",
    "write_signal",
]
