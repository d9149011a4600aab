"""The rehearsal data: 45,211 real telemarketing calls in time order, from the file that ships with Trimtab.

Source: Moro, Cortez, Rita 2014 (CC BY 4.0); see data/README.md. Must never import: flows, torch, bentoml.
"""

from pathlib import Path

import polars as pl

DATA_FILE = Path(__file__).parent / "data" / "bank-marketing.csv.gz"
FIRST_YEAR = 2008
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAY_STARTS_S = 9 * 3600
DAY_LASTS_S = 8 * 3600


def read_calls(path: Path = DATA_FILE) -> pl.DataFrame:
    """Every call, in time order: the 17 raw columns, `call_id` ("c00001"…) and `called_at` (UTC).

    The file holds day and month only: the year starts at 2008 and rises where the month falls. Within a day
    the calls are spread evenly over 9:00 to 17:00 in the file's order (made up, so that time order is
    strict).
    """
    raw = pl.read_csv(path, separator=";")
    numbers = dict(zip(MONTHS, range(1, 13), strict=True))
    month = pl.col("month").replace_strict(numbers, return_dtype=pl.Int32)
    falls = (month.diff() < 0).fill_null(value=False)
    year = FIRST_YEAR + falls.cum_sum().cast(pl.Int32)
    dated = raw.with_columns(pl.date(year, month, pl.col("day")).alias("_day"))
    place = pl.int_range(pl.len()).over("_day") / pl.len().over("_day")
    time_of_day_us = ((DAY_STARTS_S + place * DAY_LASTS_S) * 1_000_000).cast(pl.Int64)
    midnight = pl.col("_day").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return dated.select(
        *raw.columns,
        pl.format("c{}", pl.int_range(1, pl.len() + 1).cast(pl.String).str.zfill(5)).alias("call_id"),
        (midnight + pl.duration(microseconds=time_of_day_us)).alias("called_at"),
    )
