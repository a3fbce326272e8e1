"""Tables of records, batch by batch: Parquet, the two formats of Arrow, and CSV.

for batch in parquet_batches(Path("train.parquet")):
    ...                                  # [{"prompt": ..., "completion": ...}, ...]
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from studykit.errors import InputError

Record = dict[str, Any]

_LONGEST_CELL = 2**31 - 1


def parquet_batches(file: Path) -> Iterator[list[Record]]:
    """Yield the rows of a Parquet file."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as table:
        for batch in table.iter_batches():
            yield batch.to_pylist()


def arrow_batches(file: Path) -> Iterator[list[Record]]:
    """Yield the rows of an Arrow stream, as `datasets` keeps it on disk."""
    import pyarrow

    with pyarrow.OSFile(str(file)) as source, pyarrow.ipc.open_stream(source) as batches:
        for batch in batches:
            yield batch.to_pylist()


def arrow_file_batches(file: Path) -> Iterator[list[Record]]:
    """Yield the rows of an Arrow file."""
    import pyarrow

    with pyarrow.OSFile(str(file)) as source, pyarrow.ipc.open_file(source) as batches:
        for number in range(batches.num_record_batches):
            yield batches.get_batch(number).to_pylist()


def csv_batches(file: Path, stream: BinaryIO) -> Iterator[list[Record]]:
    """Yield the rows of a table of texts, without empty cells.

    Raises:
        InputError: columns of one name, or a row with more or fewer cells than there are columns.
    """
    csv.field_size_limit(_LONGEST_CELL)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    rows = csv.reader(text, strict=True)
    try:
        names = next(rows, [])
        if repeated := [name for name in names if names.count(name) > 1]:
            raise InputError(f"{file}: two columns have the name {repeated[0]!r:.40}: rename one of them")
        for number, row in enumerate((row for row in rows if row), 1):
            if len(row) != len(names):
                raise InputError(
                    f"{file}:{number}: a row of {len(row)} cells, and the file has {len(names)} columns: is a comma "
                    "not quoted?"
                )
            yield [{name: cell for name, cell in zip(names, row, strict=True) if cell != ""}]
    except UnicodeDecodeError:
        raise InputError(f"cannot read {file}: not UTF-8; save the file as UTF-8") from None
    except csv.Error as error:
        raise InputError(f"cannot read {file}: {error} in line {rows.line_num}") from None
    finally:
        text.detach()  # or it would close the stream
