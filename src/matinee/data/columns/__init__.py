r"""What is written becomes columns of known type: one step, with the rules that are stated here.

Every source, file or data frame, goes through these rules; none of them guesses.

**Missing.** Nulls, NaN, empty and blank cells and the words ``NULL null \N NA N/A n/a #N/A <NA> NaN nan
NaT None none`` are missing values. They are refused in ids, ratings and times.

Only among ids that are text otherwise, ``null`` is an id, and standard error says so.

**Ids.** If every id of a column is written as an integer, as in ``42``, ``-7`` or ``42.0``, and all of them
fit in int64 or in uint64, they are integers. Otherwise all of them are text, exactly as written, so
that ``007`` and ``7`` are two ids. Blanks around an id do not belong to it. Two ids of a text column that
differ only in such blanks, or only in zeros after the point (``1`` and ``1.0``), are refused.
``id_type=text`` keeps every id as it is written, blanks and the words above included; only nulls, empty
and blank cells are missing then. ``id_type=integer`` refuses all that is no integer and reads ``007`` as 7.
Floats are ids if they are whole and below 2**53 (float64) or 2**24 (float32), where neighbours begin
to merge; decimals if they are whole. Texts such as ``1.23457E+15``, to which spreadsheets shorten long ids,
are refused.

**Ratings** are numbers: digits with an optional sign, decimal sign and exponent. Infinite ones are
refused, and those outside of ``rating_scale``.

**Times** are either numbers or dates throughout a column. Numbers, which may have decimals, count seconds,
milliseconds, microseconds or nanoseconds since 1970-01-01 UTC: those up to 10**11 in size are seconds, up
to 10**14 milliseconds, up to 10**17 microseconds and beyond nanoseconds. A column in which they belong to
several units, or in which all of them read as dates without separators (``20010203``), is refused unless
``time_unit`` states the unit. Dates are ISO 8601, ``2001-02-03``, ``2001-02-03T04:05`` or
``2001-02-03 04:05:06.789``, with up to nine decimals and ``Z``, ``+02:00`` or `` UTC`` behind; without a zone
they are UTC. Times are kept as integers of the coarsest unit that holds all of them exactly, so rows are
ordered and cut at the resolution of the source. Floats from 2**53 (float64) or 2**24 (float32) on are
refused.

Unusual values that can be read are reported on standard error: few ids that are no integers among many that
are, quotation marks around ids, zones in some times only, and times that are all equal, rounded or within a
year of 1970.
"""
