"""The digest of a snapshot: what the rows say, not how the file was written.

Two Parquet files with the same columns, types and rows in the same order have the same digest, whatever their
compression, row groups or writer; one changed cell changes it. Columns are read one at a time.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl


def snapshot_digest(path: Path) -> str:
    """`"sha256:<64 hex>"` over names, types, null marks and values, in order."""
    frame = pl.scan_parquet(path)
    schema = frame.collect_schema()
    digest = hashlib.sha256()
    for name, kind in schema.items():
        column = frame.select(name).collect().to_series()
        digest.update(json.dumps([name, str(kind), len(column)], ensure_ascii=False).encode())
        digest.update(column_digest(column))
    return f"sha256:{digest.hexdigest()}"


def column_digest(column: pl.Series) -> bytes:
    """SHA-256 of a column's null marks and values (little-endian numbers, UTF-8 texts with their lengths)."""
    digest = hashlib.sha256(np.packbits(column.is_null().to_numpy()).tobytes())
    if column.dtype == pl.String:
        texts = column.fill_null("")
        digest.update(texts.str.len_bytes().to_numpy().astype("<u8").tobytes())
        digest.update("".join(texts.to_list()).encode())
    elif column.dtype == pl.Float64:
        values = column.fill_null(0.0).to_numpy().astype("<f8")
        digest.update((values + 0.0).tobytes())  # -0.0 is 0.0
    else:
        digest.update(column.to_physical().cast(pl.Int64).fill_null(0).to_numpy().astype("<i8").tobytes())
    return digest.digest()
