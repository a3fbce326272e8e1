"""What was measured, on disk: the only owner of the schema. Torch-free.

    frame = load("results")                      # one row per run, all studies under the folder
    frame = load("results/lexicon")              # one study
    read_items(run_folder("results/lexicon", run_id))

A study is a folder with `study.json`. Each run has a folder named by its content hash:

    results/<study>/study.json
    results/<study>/runs/<run_id>/spec.json          written first
                                  metrics.jsonl      training curves, one line per log
                                  items.jsonl        id, prompt, reference, answer and scores of each held-out item
                                  record.json        written last: its existence means complete
    results/<study>/signals/<run_id>.json            what a run's cached teacher kept, where it was measured
    results/<study>/cells/<cell_id>/                 executed notebooks of a batch
    results/<study>/index.jsonl                      derived; rebuilt whenever it is missing
"""

from studykit.files import read_lines, write_json
from studykit.results.cells import cells, read_log, read_notebook
from studykit.results.layout import find_run, open_study, run_folder, studies
from studykit.results.record import read_items, read_metrics, read_record, read_spec
from studykit.results.signals import read_signals, write_signal
from studykit.results.table import IDENTITY_COLUMNS, damaged_records, fingerprint, load, metric_columns, rebuild_index
from studykit.results.writer import RunWriter

__all__ = ['IDENTITY_COLUMNS', 'RunWriter', 'cells', 'damaged_records', 'find_run', 'fingerprint', 'load', 'metric_columns', 'open_study', 'read_items', 'read_lines', 'read_log', 'read_metrics', 'read_notebook', 'read_record', 'read_signals', 'read_spec', 'rebuild_index', 'run_folder', 'studies', 'write_json', 'write_signal']
