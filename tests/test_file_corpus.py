"""A corpus of files that people have, with what must come of each: by Python, on the command line, and to predict.

Every file of one column is written with a second one, y, of targets; the expected numbers are typed by hand.
"""

import bz2
import csv
import datetime
import gzip
import io
import json
import lzma
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mfld import cli, experiments, plots
from mfld.experiments import tables

NA = math.nan
Y = [0.5, 1.5, 2.5, 3.5, 4.5, 6.5]
QUICK = ("--n-steps", "2", "--n-particles", "4", "--l2", "0.1", "--quiet", "--json")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def column(*cells, name="a", delimiter="\t"):
    """A file of this column and y; a tab between them has no other meaning."""
    lines = [f"{name}{delimiter}y", *(f"{cell}{delimiter}{y}" for cell, y in zip(cells, Y, strict=True))]
    return "\n".join(lines) + "\n"


def whole(*cells):
    """The same with whole numbers in y, which do not tell the decimal sign."""
    return "a\ty\n" + "".join(f"{cell}\t{7 * i}\n" for i, cell in enumerate(cells))


def rows(first, *, n=6, form="{i},{x},{y}"):
    """Lines of numbers below a first line."""
    return first + "".join(form.format(i=i, x=[3.5, 1.25, 7.5, 2.5, 9.5, 4.75][i], y=Y[i]) + "\n" for i in range(n))


def numbers(*values):
    return {"a": list(values)}


def texts(*values):
    return {f"a={each}": [float(value == each) for value in values] for each in sorted(set(values))}


X = [3.5, 1.25, 7.5, 2.5, 9.5, 4.75]
I6 = [0, 1, 2, 3, 4, 5]
DROP, IMPUTE = {"missing": "drop"}, {"missing": "impute"}

# Name: content, options of load, and the features by name; or the error after the name of the file.
NUMBERS = {
    "plain": (column(1, -2, 3.5, 1e3, "+5", ".5"), {}, numbers(1, -2, 3.5, 1000, 5, 0.5)),
    "exponents": (column("1e2", "1E-2", "1.5e+1", 1, 2, 3), {}, numbers(100, 0.01, 15, 1, 2, 3)),
    "blanks around": (column(" 1 ", "2 ", " 3", 4, 5, 6), {}, numbers(1, 2, 3, 4, 5, 6)),
    "decimal comma": (column("1,5", "2,25", "3,5", 4, 5, 6), {}, numbers(1.5, 2.25, 3.5, 4, 5, 6)),
    "decimal comma first": (column(",5", "1,5", "2,5", 4, 5, 6), {}, numbers(0.5, 1.5, 2.5, 4, 5, 6)),
    "decimal comma, exponent": (column("1,5e3", "2,5e-1", 3, 4, 5, 6), {}, numbers(1500, 0.25, 3, 4, 5, 6)),
    "German": (column("1.234,56", "2,5", "1.000", 4, 5, 6), {}, numbers(1234.56, 2.5, 1000, 4, 5, 6)),
    "German millions": (column("1.234.567", "2.000", 3, 4, 5, 6), {}, numbers(1234567, 2000, 3, 4, 5, 6)),
    "English thousands": (column("1,234.5", "2,000", 3, 4, 5, 6), {}, numbers(1234.5, 2000, 3, 4, 5, 6)),
    "English millions": (column("1,234,567", "2,000", 3, 4, 5, 6), {}, numbers(1234567, 2000, 3, 4, 5, 6)),
    "Indian groups": (column("12,34,567.5", "2,000", 3, 4, 5, 6), {}, numbers(1234567.5, 2000, 3, 4, 5, 6)),
    "blank thousands": (column("1 234", "12 345 678", 3, 4, 5, 6), {}, numbers(1234, 12345678, 3, 4, 5, 6)),
    "no-break thousands": (column("1\u00a0234", "2\u202f345,5", 3, 4, 5, 6), {}, numbers(1234, 2345.5, 3, 4, 5, 6)),
    "Swiss thousands": (column("1'234", "2'345.5", 3, 4, 5, 6), {}, numbers(1234, 2345.5, 3, 4, 5, 6)),
    "curly apostrophe": (column("1\u2019234", 2, 3, 4, 5, 6), {}, numbers(1234, 2, 3, 4, 5, 6)),
    "minus sign": (column("\u22121.5", 2, 3, 4, 5, 6), {}, numbers(-1.5, 2, 3, 4, 5, 6)),
    "percent": (column("12%", "13.5%", "-1%", "0%", "7 %", "100%"), {}, numbers(12, 13.5, -1, 0, 7, 100)),
    "dollars": (column("$9.50", "$8", "-$7", "$1,000.25", "$-3", "$0"), {}, numbers(9.5, 8, -7, 1000.25, -3, 0)),
    "euros": (column("9 EUR", "8,50 EUR", "7EUR", "1 EUR", "2 EUR", "3 EUR"), {}, numbers(9, 8.5, 7, 1, 2, 3)),
    "euro sign": (column("9,50 \u20ac", "8 \u20ac", "7\u20ac", "1 \u20ac", "2\u20ac", "3\u20ac"), {}, numbers(9.5, 8, 7, 1, 2, 3)),
    "code before": (column("USD 9", "USD 8", "USD 7", "USD 1", "USD 2", "USD 3"), {}, numbers(9, 8, 7, 1, 2, 3)),
    "parentheses": (column("(12)", 3, "(4.5)", 1, 2, 5), {}, numbers(-12, 3, -4.5, 1, 2, 5)),
    "unit": (column("9 kg", "8 kg", "7.5 kg", "1 kg", "2 kg", "3 kg"), {}, numbers(9, 8, 7.5, 1, 2, 3)),
    "leading zeros": (column("007", "010", "1", "2", "3", "4"), {}, numbers(7, 10, 1, 2, 3, 4)),
    "zeros then comma": (column("0,125", "0,250", "1", "2", "3", "4"), {}, numbers(0.125, 0.25, 1, 2, 3, 4)),
    "quoted": (column('"1.5"', '"2"', '"3"', 4, 5, 6), {}, numbers(1.5, 2, 3, 4, 5, 6)),
    "decimal said": (whole("1,500", "2,250", 3, 4, 5, 6), {"decimal": ","}, numbers(1.5, 2.25, 3, 4, 5, 6)),
    "thousands said": (column("1,500", "2,250", 3, 4, 5, 6), {"decimal": "."}, numbers(1500, 2250, 3, 4, 5, 6)),
    "decimal by a neighbour": (
        "b;a;y\n" + "".join(f"{i},5;{['1.234', '2.500', '3.125'][i % 3]};{i},25\n" for i in I6),
        {},
        {"b": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5], "a": [1234, 2500, 3125] * 2},
    ),
    "thousands by a neighbour": (
        'b,a,y\n' + "".join(f'{i}.5,"{[1, 2, 3][i % 3]},500",{i}.25\n' for i in I6),
        {},
        {"b": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5], "a": [1500, 2500, 3500] * 2},
    ),
    "open decimal": (whole("1,500", "2,250", 3, 4, 5, 6), {}, ", column 'a': '1,500' may be 1500 or 1.5; --decimal"),
    "both signs": (column("1,5", "2.5", 3, 4, 5, 6), {}, ", column 'a': '1,5' and others have no decimal sign in common"),
    "percent in one": (column(1, "2%", 3, 4, 5, 6), {}, ", line 3, column 'a': '2%' has another unit than '1'"),
    "two currencies": (column("$1", "\u20ac2", "$3", "$4", "$5", "$6"), {}, ", line 3, column 'a': '\u20ac2' has another unit"),
    "letter O": (column(1, "O.5", 3, 4, 5, 6), {}, ", line 3, column 'a': 'O.5' is a text in a column of numbers"),
    "infinity": (column(1, "inf", 3, 4, 5, 6), {}, ", line 3, column 'a': 'inf' is no finite number"),
    "overflow": (column(1, "1e999", 3, 4, 5, 6), {}, ", line 3, column 'a': '1e999' is no finite number"),
    "underscore": (column(1, "1_0", 3, 4, 5, 6), {}, ", line 3, column 'a': '1_0' is a text in a column of numbers"),
    "text then number": (column("x", 1, "z", "w", "x", "z"), {}, ", line 3, column 'a': '1' is a number in a column of"),
    "numbers as texts": (column(1, 2, 1, 2, 1, 3), {"types": {"a": "text"}}, texts("1", "2", "1", "2", "1", "3")),
    "text as number": (column(1, "x", 1, 2, 1, 3), {"types": {"a": "number"}}, ", line 3, column 'a': 'x' is no number"),
}  # fmt: skip
TEXTS = {
    "words": (column("red", "blue", "red", "blue", "red", "red"), {}, texts("red", "blue", "red", "blue", "red", "red")),
    "codes": (column("A1", "A2", "A1", "A2", "A1", "A3"), {}, texts("A1", "A2", "A1", "A2", "A1", "A3")),
    "ranges": (column("1-2", "3-4", "1-2", "3-4", "5+", "5+"), {}, texts("1-2", "3-4", "1-2", "3-4", "5+", "5+")),
    "stars": (column("1 star", "2 stars", "1 star", "2 stars", "3 stars", "2 stars"), {},
              texts("1 star", "2 stars", "1 star", "2 stars", "3 stars", "2 stars")),
    "versions": (column("1.2.3", "1.2.4", "1.2.3", "2.0.0", "2.0.0", "1.2.3"), {},
                 texts("1.2.3", "1.2.4", "1.2.3", "2.0.0", "2.0.0", "1.2.3")),
    "truth": (column("True", "TRUE", "true", "False", "false", "FALSE"), {},
              texts("true", "true", "true", "false", "false", "false")),
    "yes": (column("Yes", "YES", "yes", "No", "no", "NO"), {}, texts("yes", "yes", "yes", "no", "no", "no")),
    "capitals": (column("Yes", "Yes", "Yes", "No", "No", "No"), {}, texts("Yes", "Yes", "Yes", "No", "No", "No")),
    "addresses": (column("192.168.100.100", "10.100.100.101", *["192.168.100.100"] * 4), {}, texts("192.168.100.100", "10.100.100.101", *["192.168.100.100"] * 4)),
    "single quotes": (column("'1,5'", "'2'", "'3'", "'4'", "'5'", "'6'", name="'a'"), {}, numbers(1.5, 2, 3, 4, 5, 6)),
    "umlauts": (column("Köln", "Ulm", "Köln", "Ulm", "Köln", "Ulm"), {}, texts("Köln", "Ulm", "Köln", "Ulm", "Köln", "Ulm")),
    "quotes": (column('"a ""b"""', "c", '"a ""b"""', "c", "c", "c"), {}, texts('a "b"', "c", 'a "b"', "c", "c", "c")),
    "line end in quotes": (column('"p\nq"', "c", '"p\nq"', "c", "c", "c"), {}, texts("p\nq", "c", "p\nq", "c", "c", "c")),
    "NUL": (column("p\0", "c", "p", "c", "c", "c"), {}, ", line 2, column 'a': 'p\\x00' has a NUL character"),
    "prose": (column("p" * 201, "c", "p", "c", "c", "c"), {}, ", line 2, column 'a': a text of 201 characters is no"),
    "open quote": (column("p", '"c', "p", "c", "c", "c"), {}, ", line 3: unexpected end of data"),
    "constant": (column("p", "p", "p", "p", "p", "p"), {}, ", column 'a' is constant ('p' in every row)"),
}  # fmt: skip
DATES = {
    "ISO": (column(*(f"2024-01-0{i}" for i in range(1, 7))), {}, [19723, 19724, 19725, 19726, 19727, 19728]),
    "ISO with times": (column(*(f"1970-01-02T{i:02}:00:00" for i in (0, 6, 12, 18, 3, 9))), {},
                       [1, 1.25, 1.5, 1.75, 1.125, 1.375]),
    "zones": (column(*(f"1970-01-02 {i:02}:00+06:00" for i in (6, 12, 18, 9, 15, 21))), {},
              [1, 1.25, 1.5, 1.125, 1.375, 1.625]),
    "slashes, year first": (column(*(f"1970/01/0{i}" for i in range(1, 7))), {}, I6),
    "dots": (column(*(f"0{i}.02.1970" for i in range(1, 7))), {}, [31, 32, 33, 34, 35, 36]),
    "day first": (column("13/01/1970", *(f"0{i}/01/1970" for i in range(1, 6))), {}, [12, 0, 1, 2, 3, 4]),
    "month first": (column("01/13/1970", *(f"01/0{i}/1970" for i in range(1, 6))), {}, [12, 0, 1, 2, 3, 4]),
    "times": (column("00:00", "06:00", "12:00", "18:00", "03:00", "23:59:60"[:5]), {},
              [0, 0.25, 0.5, 0.75, 0.125, (23 * 60 + 59) / 1440]),
    "open order": (column(*(f"0{i}/01/1970" for i in range(1, 7))), {}, ", line 2, column 'a': '01/01/1970' has day and"),
    "no such day": (column("2023-02-29", *(f"2024-01-0{i}" for i in range(1, 6))), {}, ", line 2, column 'a': '2023-02-29' is no"),
    "some zones": (column("2023-02-28 10:00Z", *(f"2024-01-0{i} 10:00" for i in range(1, 6))), {}, ", line 2, column 'a': '2023-02-28 10:00Z': some"),
    "years of two digits": (column(*(f"0{i}/15/24" for i in range(1, 7))), {}, ", line 2, column 'a': '01/15/24' looks like a date"),
    "years of two digits, dots": (column(*(f"15.{i}.24" for i in range(1, 7))), {}, ", line 2, column 'a': '15.1.24' looks like a date"),
    "year and month": (column(*(f"2024-0{i}" for i in range(1, 7))), {}, ", line 2, column 'a': '2024-01' looks like a date"),
    "month and year": (column(*(f"0{i}/2024" for i in range(1, 7))), {}, ", line 2, column 'a': '01/2024' looks like a date"),
    "quarters": (column(*(f"202{i}-Q1" for i in range(1, 7))), {}, ", line 2, column 'a': '2021-Q1' looks like a date"),
    "half days": (column(*(f"{i}:30 pm" for i in range(1, 7))), {}, ", line 2, column 'a': '1:30 pm' looks like a date"),
    "seasons that are said to be texts": (column(*["2009-10", "2010-11"] * 3), {"types": {"a": "text"}}, texts(*["2009-10", "2010-11"] * 3)),
    "ranges of age are no dates": (column(*["10-19", "20-29"] * 3), {}, texts(*["10-19", "20-29"] * 3)),
    "words of months": (column(*(f"{i} Jan 2024" for i in range(1, 7))), {}, ", line 2, column 'a': '1 Jan 2024' looks like a date"),
    "mixed forms": (column("2024-01-01", "02.01.2024", *(f"2024-01-0{i}" for i in range(1, 5))), {}, ", line 2, column 'a': '2024-01-01' is a date"),
    "dates as texts": (column(*(f"2024-01-0{i % 2 + 1}" for i in I6)), {"types": {"a": "text"}},
                       texts(*(f"2024-01-0{i % 2 + 1}" for i in I6))),
    "dates to predict": (column(*(f"2024-01-0{i}" for i in range(1, 7)), name="b"), {"target": "b"}, ", target 'b' has dates"),
}  # fmt: skip
GONE = ["", "NA", "n/a", "N.A.", "<NA>", "#N/A", "#DIV/0!", "None", "NaT", "NaN", r"\N", "(null)", "NULL", "nil", "-", "--", ".", "?", "#VALUE!", " na "]  # fmt: skip
MISSING = {
    **{
        f"missing {cell!r}": (
            column(1, cell, 3, 4, 5, 7),
            {},
            f", line 3, column 'a': the value is missing{f' ({cell.strip()!r})' if cell else ''}; --missing drop leaves",
        )
        for cell in GONE
    },
    **{f"missing text {cell!r}": (column("u", cell, "v", "u", "v", "u"), IMPUTE,
                                  {"a=u": [1, 0, 0, 1, 0, 1], "a=v": [0, 0, 1, 0, 1, 0], "a missing": [0, 1, 0, 0, 0, 0]})
       for cell in ("<NA>", "#N/A", "None", r"\N", "-", "N.A.")},
    "dropped": (column(1, "NA", 3, 4, 5, 7), DROP, numbers(1, 3, 4, 5, 7)),
    "imputed": (column(1, "NA", 3, 4, 5, 7), IMPUTE, {"a": [1, 4, 3, 4, 5, 7], "a missing": [0, 1, 0, 0, 0, 0]}),
    "imputed decimal comma": (column("1,5", "-", "3,5", "4,5", 5, 7), IMPUTE,
                              {"a": [1.5, 4.5, 3.5, 4.5, 5, 7], "a missing": [0, 1, 0, 0, 0, 0]}),
    "values said, otherwise written": (column(1, "-999.0", 3, 4, 5, 7), {"missing_values": ["-999"], **DROP}, numbers(1, 3, 4, 5, 7)),
    "values said": (column(1, -999, 3, 4, 5, 7), {"missing_values": ["-999"], **DROP}, numbers(1, 3, 4, 5, 7)),
    "NA is Namibia": (column("NA", "ZA", "NA", "ZA", "NA", "ZA"), {"missing_values": []}, texts("NA", "ZA", "NA", "ZA", "NA", "ZA")),
    "first value": (column("NA", 2, 3, 4, 5, 7), {}, ", line 2, column 'a': the value is missing ('NA'); --missing drop"),
    "whole column": (column("", "", "", "", "", ""), IMPUTE, ", line 2, column 'a': the value is missing, and so are all"),
    "target": (column(1, 2, 3, 4, 5, 7).replace("2.5", "NA"), {}, ", line 4, column 'y': the value is missing ('NA')"),
    "target, imputed": (column(1, 2, 3, 4, 5, 7).replace("2.5", "NA"), IMPUTE, numbers(1, 2, 4, 5, 7)),
    "few rows left": (column(1, "NA", "NA", 4, 5, 7), DROP, " has 4 rows; at least 5 are needed"),
}  # fmt: skip
HEADERS = {
    "names": (rows("i,x,y\n"), {}, {"i": I6, "x": X}),
    "none": (rows(""), {}, {"1": I6, "2": X}),
    "missing first": (rows("NA,2.5,1.5\n"), DROP, {"1": I6, "2": X}),
    "question mark first": (rows("?,2.5,1.5\n"), DROP, {"1": I6, "2": X}),
    "dash first": (rows("-,2.5,1.5\n"), DROP, {"1": I6, "2": X}),
    "comma first": (rows('9,"1,5",0.25\n', form='{i},"{i},25",{y}'), {}, {"1": [9, *I6], "2": [1.5, 0.25, 1.25, 2.25, 3.25, 4.25, 5.25]}),
    "letter O first": (rows("O.5,2.5,1.5\n"), {}, ", line 2, column '1': '0' is a number in a column of texts (above it 'O.5')"),
    "text first": (rows("five,2.5,1.5\n"), {}, ", line 2, column '1': '0' is a number in a column of texts (above it 'five')"),
    "0, 1, 2": (rows("0,1,2\n", form="{x},{y},{y}"), {}, {"0": X, "1": Y}),
    "years": (rows("2001,2002,2003\n", form="{x},{y},{y}"), {}, {"2001": X, "2002": Y}),
    "country and years": (rows("country,2001,2002\n", form="c{i},{x},{y}").replace("c1", "c0"), {"drop": ["country"]}, {"2001": X}),
    "numbers above whole numbers": (rows("0,1,2\n", form="1{i},2{i},3{i}"), {}, ", line 1: names or numbers (0, 1, 2)? Say which"),
    "two years": (rows("2020,2021\n", form="{i},{i}"), {}, ", line 1: names or numbers (2020, 2021)? Say which"),
    "said to be names": (rows("0,1,2\n", form="1{i},2{i},3{i}"), {"header": True}, {"0": [10, 11, 12, 13, 14, 15], "1": [20, 21, 22, 23, 24, 25]}),
    "said to be none": (rows("0,1,2\n", form="1{i},2{i},3{i}"), {"header": False}, {"1": [0, 10, 11, 12, 13, 14, 15], "2": [1, 20, 21, 22, 23, 24, 25]}),
    "a name and a number": (rows("i,7,y\n"), {}, ", line 1: names or numbers (i, 7, y)? Say which"),
    "index of pandas": (rows(",x,y\n"), {}, {"x": X}),
    "no name, no index": (rows(",x,y\n", form="{y},{x},{y}"), {}, {"column 1": Y, "x": X}),
    "trailing delimiter": (rows("i,x,y,\n", form="{i},{x},{y},"), {}, {"i": I6, "x": X}),
    "trailing delimiter, no header": (rows("", form="{i},{x},{y},"), {}, {"1": I6, "2": X}),
    "trailing delimiter below": (rows("i,x,y\n", form="{i},{x},{y},"), {}, {"i": I6, "x": X}),
    "numpy.savetxt": (rows("# i x y\n", form="{i} {x} {y}"), {}, {"i": I6, "x": X}),
    "same names": (rows("x,x,y\n"), {}, ", line 1: column 2 has the name 'x' of column 1"),
    "blank lines above": (rows("\n\ni,x,y\n"), {}, {"i": I6, "x": X}),
    "drop by number": (rows("i,x,y\n"), {"drop": ["1"]}, {"x": X}),
    "drop by name": (rows("i,x,y\n"), {"drop": ["i"]}, {"x": X}),
    "drop without a name": (rows(",x,y\n", form="t{i},{x},{y}"), {"drop": ["1"]}, {"x": X}),
    "drop nothing": (rows("i,x,y\n"), {"drop": ["z"]}, " has no column 'z' to drop; it has i, x, y"),
    "target by number": (rows("i,y,x\n", form="{i},{y},{x}"), {"target": "2"}, {"i": I6, "x": X}),
    "target by number with an index": (rows(",y,x\n", form="{i},{y},{x}"), {"target": "2"}, {"x": X}),
}  # fmt: skip
DIALECTS = {
    **{f"delimiter {d!r}": (rows("i,x,y\n").replace(",", d), {}, {"i": I6, "x": X}) for d in ",;\t| "},
    **{f"line end {e!r}": (rows("i,x,y\n").replace("\n", e), {}, {"i": I6, "x": X}) for e in ("\r\n", "\r")},
    "columns of blanks": (rows("  i     x     y\n", form="  {i}   {x}    {y}  "), {}, {"i": I6, "x": X}),
    "delimiter said": (rows("i:x:y\n", form="{i}:{x}:{y}"), {"delimiter": ":"}, {"i": I6, "x": X}),
    "sep=": ("sep=;\n" + rows("i;x;y\n", form="{i};{x};{y}"), {}, {"i": I6, "x": X}),
    "semicolons in texts": (rows("", form="u;v,{x},{y}").replace("u;v", "w;v", 2), {}, {"1=u;v": [0, 0, 1, 1, 1, 1], "1=w;v": [1, 1, 0, 0, 0, 0], "2": X}),
    "decimal commas and semicolons": (rows("x;y\n", form="{x};{y}").replace(".", ","), {}, {"x": X}),
    "no last line end": (rows("i,x,y\n").rstrip("\n"), {}, {"i": I6, "x": X}),
    "blank lines": (rows("i,x,y\n").replace("\n", "\n\n"), {}, {"i": I6, "x": X}),
    "one row short": (rows("i,x,y\n") + "7,8\n", {}, ", line 8: 2 fields where the first line has 3"),
    "one row long": (rows("i,x,y\n") + "7,8,9,10\n", {}, ", line 8: 4 fields where the first line has 3"),
    "long field dropped": (rows("t,x,y\n", form="z{i},{x},{y}").replace("z1", "z" * 200_000), {"drop": ["t"]}, {"x": X}),
    "UTF-8 mark": (rows("i,x,y\n").encode("utf-8-sig"), {}, {"i": I6, "x": X}),
    "UTF-16": (rows("i,x,y\n").encode("utf-16"), {}, {"i": I6, "x": X}),
    "UTF-16 without its mark": (rows("i,x,y\n").encode("utf-16-le"), {}, {"i": I6, "x": X}),
    "UTF-32": (rows("i,x,y\n").encode("utf-32"), {}, {"i": I6, "x": X}),
    "cp1252": (column("é", "è", "é", "è", "é", "è").encode("cp1252"), {}, ", line 2: byte 0xe9 is no UTF-8 text; say which"),
    "cp1252 said": (column("é", "€", "é", "€", "é", "€").encode("cp1252"), {"encoding": "cp1252"}, texts("é", "€", "é", "€", "é", "€")),
    "encoding of no texts": (rows("i,x,y\n"), {"encoding": "rot13"}, "encoding must be one that Python knows, such as"),
    "type of no column": (rows("i,x,y\n"), {"types": {"z": "text"}}, " has no column 'z'; it has i, x, y"),
    "no such encoding": (rows("i,x,y\n"), {"encoding": "klingon"}, "encoding must be one that Python knows, such as"),
    "empty": ("", {}, " is empty"),
    "blank": (" \n\n", {}, " is empty"),
    "only names": ("i,x,y\n", {}, " has a header and no rows"),
    "web page": ("<!DOCTYPE html><html></html>", {}, " is a web page and no table"),
    "workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", {}, " is a workbook; save its sheet as CSV"),
    "gzip": (gzip.compress(rows("i,x,y\n").encode()), {}, {"i": I6, "x": X}),
    "bzip2": (bz2.compress(rows("i,x,y\n").encode()), {}, {"i": I6, "x": X}),
    "xz": (lzma.compress(rows("i,x,y\n").encode()), {}, {"i": I6, "x": X}),
    "half a gzip": (gzip.compress(rows("i,x,y\n").encode())[:30], {}, " is a damaged gzip file"),
    "JSON lines": ("".join(json.dumps({"i": i, "c": "u" if i % 2 else "v", "y": Y[i]}) + "\n" for i in I6), {}, {"i": I6, "c=u": [0, 1] * 3, "c=v": [1, 0] * 3}),
    "JSON truth": ("".join(json.dumps({"c": i % 2 == 0, "y": Y[i]}) + "\n" for i in I6), {}, {"c=false": [0, 1] * 3, "c=true": [1, 0] * 3}),
    "JSON list": (json.dumps([{"i": i, "y": Y[i]} for i in I6]), {}, {"i": I6}),
    "JSON null": ("".join(json.dumps({"i": i or None, "y": Y[i]}) + "\n" for i in I6), {}, ", line 1, column 'i': the value is missing"),
    "JSON without a name": ("".join(json.dumps({"i": i, "y": Y[i]} if i != 2 else {"y": 1}) + "\n" for i in I6), DROP, {"i": [0, 1, 3, 4, 5]}),
    "JSON in parts": ('{"i": 1, "y": 2}\n{"i": \n', {}, ", line 2: no JSON: Expecting value"),
    "JSON name twice": ('{"i": 1, "i": 2, "y": 2}\n' * 6, {}, ", line 1: no JSON: the name 'i' comes twice in an object"),
    "JSON of lists": ('{"i": [1], "y": 2}\n' * 6, {}, ", line 1, column 'i': [1] is no number and no text"),
}  # fmt: skip
CORPUS = {
    **NUMBERS,
    **TEXTS,
    **MISSING,
    **HEADERS,
    **DIALECTS,
    **{k: v for k, v in DATES.items() if not isinstance(v[2], list)},
}
OF_DATES = {name: case for name, case in DATES.items() if isinstance(case[2], list)}


def write(content, name="data.csv"):
    if name == "data.csv" and (content[:1] in ("{", b"{") or content[:2] == "[{"):
        name = "data.jsonl"
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def on_the_command_line(options):
    """The same options as `load` takes."""
    given = []
    for name, value in options.items():
        if name == "types":
            given += [part for column, kind in value.items() for part in ("--type", f"{column}={kind}")]
        elif name == "drop":
            given += [part for each in value for part in ("--drop", each)]
        elif name == "missing_values":
            given.append(f"--missing-values={','.join(value)}")
        else:
            shown = {True: "yes", False: "no"}.get(value, value)
            given += [f"--{name}", shown]
    return given


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command line without a picture: status, standard output, standard error."""

    def no_picture(path):
        raise ImportError("none")

    monkeypatch.setattr(plots, "check_format", no_picture)

    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_the_corpus_is_large():
    assert len(CORPUS) + len(OF_DATES) >= 120


@pytest.mark.parametrize("name", CORPUS)
def test_python_reads_or_refuses(name):
    content, options, expected = CORPUS[name]
    path = write(content)
    if isinstance(expected, str):
        with pytest.raises(
            ValueError, match=re.escape(expected) if expected[0].isalpha() else re.escape(path)
        ) as error:
            experiments.load(path, **options)
        assert expected in re.sub(r", line \d+", "", str(error.value)) or expected in str(error.value)
        return
    data = experiments.load(path, **options)
    assert data.encoding.feature_names == list(expected)
    np.testing.assert_array_equal(data.inputs, np.transpose(list(expected.values())))


@pytest.mark.parametrize("name", CORPUS)
def test_the_command_line_reads_or_refuses_and_predicts(name, run, folder):
    content, options, expected = CORPUS[name]
    path = write(content)
    given = on_the_command_line(options)
    status, out, error = run("train", path, *given, *QUICK)
    if isinstance(expected, str):
        assert (status, out) == (2, "")
        assert error.count("\n") == 1
        assert error.startswith("mfld: ")
        assert [each.name for each in folder.iterdir()] == [path]
        return
    assert (status, error) == (0, "no picture: none\n")
    report = json.loads(out)
    assert report["features"] == len(expected)
    assert report["reading"]["format"] in ("CSV", "JSON")
    if "drop" in options.values():
        return  # rows with missing values are refused
    kept = [part for part in given if part.startswith("--missing-values")]
    for option in ("--decimal", "--delimiter", "--encoding"):
        if option in given:
            kept += [option, given[given.index(option) + 1]]
    if name == "target, imputed":
        return
    status, out, error = run("predict", "data-model.npz", path, "--json", *kept)
    assert (status, error) == (0, "")
    assert json.loads(out)["scores"] == report["scores"]  # the same rows, of which some were held out


@pytest.mark.parametrize("name", OF_DATES)
def test_dates_are_days_and_their_cycles(name, run):
    content, options, expected = OF_DATES[name]
    data = experiments.load(write(content), **options)
    np.testing.assert_allclose(data.inputs[:, 0], expected, rtol=0, atol=1e-9)
    periods = {"year": 365.2425, "week": 7, "day": 1}
    for place, feature in enumerate(data.encoding.feature_names[1:], 1):
        _, cycle, wave = feature.split()
        angle = 2 * math.pi * np.array(expected) / periods[cycle]
        np.testing.assert_allclose(data.inputs[:, place], {"sin": np.sin, "cos": np.cos}[wave](angle), atol=1e-9)
    has_times = any(value % 1 for value in expected)
    assert ("a day sin" in data.encoding.feature_names) == has_times
    assert ("a year cos" in data.encoding.feature_names) == (name != "times")
    assert run("train", "data.csv", "--n-steps", "300", "--n-particles", "20", "--l2", "0.001", "--quiet")[0] == 0
    assert run("predict", "data-model.npz", "data.csv")[0] == 0


TABLE = rows("i,x,y\n").encode()


def features(source, **options):
    data = experiments.load(source, **options)
    return data.encoding.feature_names, data.inputs.tolist(), data.targets.tolist()


def test_parquet_arrow_and_zstd(run):
    arrow = pytest.importorskip("pyarrow")
    parquet, feather = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow.feather")
    expected = ["i", "c=u", "c=v", "b=false", "b=true", "d", "d year sin", "d year cos", "d week sin", "d week cos"]
    columns = {
        "i": arrow.array(I6, arrow.int16()),
        "c": arrow.array(list("uvuvuv")).dictionary_encode(),
        "b": arrow.array([True, False] * 3),
        "d": arrow.array(I6, arrow.date32()),
        "y": arrow.array(Y, arrow.float32()),
    }
    table = arrow.table(columns)
    parquet.write_table(table, "data.parquet")
    feather.write_feather(table, "data.feather", "uncompressed")
    with arrow.OSFile("stream", "wb") as file, arrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    for name in ("data.parquet", "data.feather", "stream"):
        names, inputs, targets = features(f"./{name}")
        assert names == expected
        assert targets == Y
        np.testing.assert_array_equal(np.array(inputs)[:, [0, 1, 4, 5]], np.transpose([I6, [1, 0] * 3, [1, 0] * 3, I6]))
    assert run("train", "data.parquet", *QUICK)[0] == 0
    assert run("predict", "data-model.npz", "data.feather")[0] == 0
    gaps = arrow.table({"i": arrow.array([0, None, 2, 3, 4, 5]), "y": Y, "nested": [[1]] * 6})
    parquet.write_table(gaps, "gaps.parquet")
    with pytest.raises(ValueError, match=r"gaps\.parquet, column 'nested' is of the type list"):
        experiments.load("gaps.parquet", target="y")
    with pytest.raises(ValueError, match=r"gaps\.parquet, row 1, column 'i': the value is missing"):
        experiments.load("gaps.parquet", drop=["nested"])
    twice = arrow.Table.from_arrays([arrow.array(X), arrow.array(I6), arrow.array(Y)], ["x", "x", "y"])
    parquet.write_table(twice, "twice.parquet")
    with pytest.raises(ValueError, match=r"twice\.parquet: column 2 has the name 'x' of column 1"):
        experiments.load("twice.parquet")
    Path("half.parquet").write_bytes(Path("data.parquet").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"half\.parquet is a damaged Parquet file"):
        experiments.load("half.parquet")
    with arrow.CompressedOutputStream("data.csv.zst", "zstd") as file:
        file.write(TABLE)
    assert features("data.csv.zst") == features(write(TABLE))


def test_the_index_that_pandas_writes_to_parquet_is_left_out():
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"x": X, "y": Y, "__index_level_0__": I6}), "data.parquet")
    data = experiments.load("data.parquet")
    assert (data.encoding.feature_names, data.encoding.target) == (["x"], "y")
    assert data.reading["left_out"] == {"__index_level_0__": "it counts the rows"}


def test_pipes_standard_input_and_urls(folder):
    write(TABLE)
    expected = features("data.csv")
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(TABLE))
    writer.start()
    assert features("./pipe") == expected
    writer.join()
    assert features((folder / "data.csv").as_uri()) == expected

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/data.csv.gz" else 404)
            self.end_headers()
            self.wfile.write(gzip.compress(TABLE))

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        host = f"http://127.0.0.1:{server.server_port}"
        assert features(f"{host}/data.csv.gz") == expected
        with pytest.raises(OSError, match=rf"{host}/none.csv: Not Found"):
            experiments.load(f"{host}/none.csv")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    with pytest.raises(ValueError, match=r"s3://a/b\.csv must begin with one of http://"):
        experiments.load("s3://a/b.csv")
    done = mfld("train - --n-steps 2 --n-particles 4 --l2 0.1 --json --quiet", stdin=TABLE)
    assert json.loads(done.stdout)["model"] == "stdin-model.npz"


def mfld(arguments, stdin=None, shell=""):
    """The command in a process of its own, with redirections of the shell."""
    block = "import sys; from mfld import cli; sys.exit(cli.main())"
    command = f'"{sys.executable}" -c "{block}" {arguments} {shell}'
    return subprocess.run(["bash", "-c", command], input=stdin, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("shell", "status"),
    [
        ("2>&-", 0),
        (">&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 2),
        (">/dev/full 2>/dev/full", 2),
        (">&- 2>&- <&-", 0),
        ("| head -1; exit ${PIPESTATUS[0]}", 0),
        ("| true; exit ${PIPESTATUS[0]}", 0),
    ],
)
def test_outputs_that_nobody_takes_cost_no_model(shell, status, run):
    write(TABLE)
    done = mfld("train data.csv --n-steps 20 --n-particles 4 --l2 0.1", shell=shell)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    if shell == ">/dev/full":
        assert done.stderr.splitlines()[-1] == b"mfld: standard output: No space left on device"
    assert run("predict", "data-model.npz", "data.csv")[0] == 0


def test_what_is_read_and_how_is_one_line(capsys):
    write(column("1,5", "NA", "3,5", "4", "5", "7", delimiter=";").replace(".", ","))
    options = ["train", "data.csv", "--missing", "impute", *QUICK]
    assert cli.main(options) == 0
    reading = json.loads(capsys.readouterr().out)["reading"]
    assert reading == {
        "format": "CSV",
        "compression": None,
        "encoding": "utf-8",
        "delimiter": ";",
        "decimal": ",",
        "left_out": {},
        "header": True,
        "kinds": {"number": 2},
        "missing": {"policy": "impute", "values": {"a": 1}, "rows_left_out": 0},
    }
    assert cli.main(options[:-1]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == (
        "read as CSV; utf-8; delimiter ';'; decimal ,; names in the first line; columns of numbers: 2; "
        "missing values (a: 1): impute, 0 rows left out"
    )


def test_new_files_are_read_as_the_first_one(run):
    write(column("12%", "13%", "14%", "15%", "16%", "20%"))
    assert run("train", "data.csv", *QUICK)[0] == 0
    status, out, _ = run("predict", "data-model.npz", write("a\ty\n12%\t\n13%\t\n", "new.csv"), "--json")
    assert (status, len(json.loads(out)["predictions"])) == (0, 2)  # a target column that is empty is none
    status, _, error = run("predict", "data-model.npz", write("a\n0.12\n0.13\n", "new.csv"))
    assert (status, error) == (2, "mfld: new.csv, column 'a' has numbers without a unit, not numbers with '%'\n")
    status, _, error = run("predict", "data-model.npz", write("a\n12%\n\n-\n", "new.csv"))
    assert (status, error) == (2, "mfld: new.csv, line 4, column 'a': the value is missing ('-')\n")

    write(column("True", "TRUE", "false", "False", "true", "true"))
    assert run("train", "data.csv", *QUICK)[0] == 0
    assert run("predict", "data-model.npz", write("a\nTRUE\n", "new.csv"))[0] == 0

    write(column(1, "NA", 3, 4, 5, 7))
    assert run("train", "data.csv", "--missing", "impute", *QUICK)[0] == 0
    for content in ("a\n4\n", "a\nNA\n5\n"):
        assert run("predict", "data-model.npz", write(content, "new.csv"))[0] == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a;b\n1,5;1\n2,000;2\n", [1.5, 2.0]),
        ("a;b\n1.234,5;1\n2.000;2\n", [1234.5, 2000.0]),
        ("a;b\n1.25;1\n2.000;2\n", [1.25, 2.0]),  # a point, whatever the first file has
        ("a;b\n1234;1\n2;2\n", [1234.0, 2.0]),
        ("a;b\n1.234;1\n2.000;2\n", None),
    ],
)
def test_decimal_signs_of_new_files_that_may_be_those_of_the_first_one(content, expected):
    data = experiments.load(write(whole("1,5", "2,25", "3,5", "4,5", "5,5", "6,125").replace("\t", ";")))
    path = write(content, "new.csv")
    if expected is not None:
        inputs, _ = experiments.load_like(data.encoding, path, None)
        assert inputs[:, 0].tolist() == expected
        return
    with pytest.raises(
        ValueError, match=r"new\.csv has numbers that may have a decimal point, .*; --decimal \. or , tells"
    ):
        experiments.load_like(data.encoding, path, None)
    for sign, value in ((".", 1.234), (",", 1234.0)):
        inputs, _ = experiments.load_like(data.encoding, path, None, tables.Format(decimal=sign))
        assert inputs[0, 0] == value


def test_numbers_to_predict_that_are_far_out_are_predicted(run):
    write(column(1, 2, 3, 4, 5, 7))
    assert run("train", "data.csv", *QUICK)[0] == 0
    status, out, error = run("predict", "data-model.npz", write("a\n1e300\n-1e300\n", "new.csv"), "--json")
    assert (status, error) == (0, "")
    assert np.isfinite(json.loads(out)["predictions"]).all()


LARGE = {
    "numbers": lambda i: f"{i},{i / 7!r},{-i}",
    "texts": lambda i: f"{i},{'uvw'[i % 3]},{-i}",
    "quoted": lambda i: f'{i},"u, {i % 3}",{-i}',
    "quoted after a blank": lambda i: f'{i}, "u, {i % 3}",{-i}',
    "gaps": lambda i: f"{i},{'' if i == 20_000 else i / 7},{-i}",
    "late text": lambda i: f"{i},{'x' if i == 20_000 else i},{-i}",
    "line ends in fields": lambda i: f'{i},"u\n{i % 3}",{-i}',
    "blank lines": lambda i: f"{i},{i / 7!r},{-i}" + "\n" * (i % 100 == 0),
    "dates": lambda i: f"{i},2024-01-{i % 28 + 1:02},{-i}",
    "percent": lambda i: f"{i},{i}%,{-i}",
    "infinite": lambda i: f"{i},{'inf' if i == 20_000 else i},{-i}",
    "plus": lambda i: f"{i},+{i},{-i}",
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("first", ["", "a,b,c\n", "sep=,\na,b,c\n"])
def test_pyarrow_reads_what_is_read_without_it(name, first, monkeypatch):
    pytest.importorskip("pyarrow")
    write(first + "\n".join(map(LARGE[name], range(25_000))) + "\n")

    def read():
        try:
            table = tables.read("data.csv")
        except ValueError as error:
            return str(error)
        columns = [(each.name, each.values.tolist(), each.categories, each.kind, each.gap) for each in table.columns]
        return repr((columns, table.rows.tolist(), table.header, table.target))

    quick = read()
    monkeypatch.setattr(tables, "_LEAST_BYTES", 1 << 40)
    assert quick == read()


CELLS = {
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "text": st.text(st.characters(codec="cp1252", exclude_characters="\0"), min_size=1, max_size=8).filter(
        lambda text: text == text.strip() and text.lower() not in ("true", "false")
    ),
    "date": st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
}
TRUTHS = st.integers(1, 12).flatmap(
    lambda n: st.lists(
        st.sampled_from(sorted(CELLS)).flatmap(
            lambda kind: st.tuples(st.just(kind), st.lists(CELLS[kind], min_size=n, max_size=n))
        ),
        min_size=2,
        max_size=4,
    )
)


@settings(max_examples=200, deadline=None)
@given(
    TRUTHS,
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"]),
    st.sampled_from(".,"),
    st.sampled_from([None, gzip.compress, lzma.compress]),
)
def test_what_is_written_in_any_dialect_is_read_again(columns, delimiter, encoding, decimal, pack):
    def cell(value):
        return str(value).replace(".", decimal) if isinstance(value, float) else str(value)

    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow([f"column{place}" for place in range(len(columns))])
    writer.writerows(zip(*([cell(value) for value in values] for _, values in columns), strict=True))
    content = text.getvalue().encode(encoding)
    how = tables.Format(
        header=True,
        decimal=decimal,
        encoding=encoding if encoding == "cp1252" else None,
        missing_values=(),
        types={f"column{place}": kind for place, (kind, _) in enumerate(columns)},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(pack(content) if pack else content)
        table = tables.read(path, how)
    for column, (kind, values) in zip(table.columns, columns, strict=True):
        assert column.kind == kind
        if kind == "text":
            assert [column.categories[code] for code in column.values] == values
        elif kind == "number":
            np.testing.assert_array_equal(column.values, values)
        else:
            days = [(value - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=1) for value in values]
            np.testing.assert_allclose(column.values, days, rtol=0, atol=1e-10)


WORDS = st.text("abcdefghijklmnopqrstuvwxyzäéß ,;|", min_size=1, max_size=8).map(lambda text: f"w{text}w")
DECIMALS = st.integers(-(10**7), 10**7).map(lambda whole: whole / 1000)
DAYS = st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1))
UNTOLD = st.integers(3, 9).flatmap(
    lambda n: st.lists(
        st.sampled_from(
            [("text", WORDS), ("number", DECIMALS), ("number", st.integers(-999, 9999)), ("date", DAYS)]
        ).flatmap(lambda kind: st.tuples(st.just(kind[0]), st.lists(kind[1] | st.just(None), min_size=n, max_size=n))),
        min_size=2,
        max_size=4,
    )
)


@settings(max_examples=200, deadline=None)
@given(
    UNTOLD,
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(".,"),
    st.sampled_from(["NA", "", "?", "null"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_nobody_tells_is_found_out_or_refused(columns, delimiter, quoting, encoding, decimal, gap, line_end):
    """No option says anything about the file: its values come out right, or it is refused by its name."""

    def cell(value):
        if value is None:
            return gap
        return str(value).replace(".", decimal) if isinstance(value, float) else str(value)

    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    writer.writerow([f"column{place}" for place in range(len(columns))])
    writer.writerows(zip(*([cell(value) for value in values] for _, values in columns), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(text.getvalue().encode(encoding))
        try:
            table = tables.read(path)
        except ValueError as error:
            event(f"refused: {str(error).split(': ')[-1][:40]}")
            assert str(path) in str(error)  # noqa: PT017  either outcome is right
            return
    event("read")
    assert len(table.rows) == len(columns[0][1])
    for column, (kind, values) in zip(table.columns, columns, strict=True):
        assert column.missing.tolist() == [value is None for value in values]
        there = [(found, value) for found, value in zip(column.values, values, strict=True) if value is not None]
        if not there:
            continue
        assert column.kind == kind
        if kind == "text":
            assert all(column.categories[found] == value for found, value in there)
        elif kind == "number":
            assert all(found == value for found, value in there)
        else:
            assert all(found == (value - datetime.date(1970, 1, 1)).days for found, value in there)


@pytest.mark.parametrize("first", ["day", "month"])
@pytest.mark.parametrize("header", [True, False])
def test_dates_to_predict_are_read_as_those_of_training(first, header, run):
    """In the file to predict no row tells day from month."""
    months, days = [1, 2, 3, 4, 5, 6, 7, 8], [3, 28, 30, 12, 1, 17, 25, 9]

    def text(month, day):
        return f"{day}/{month}/2024" if first == "day" else f"{month}/{day}/2024"

    names = "when\ty\n" * header
    rows = [f"{text(m, d)}\t{m + d / 31}\n" for m, d in zip(months, days, strict=True)]
    write(names + "".join(rows))
    options = ("--n-steps", "300", "--n-particles", "20", "--l2", "0.001", "--quiet")
    assert run("train", "data.csv", *options)[::2] == (0, "no picture: none\n")
    write(names + f"{text(5, 4)}\t1.5\n{text(3, 2)}\t2.5\n", "open.csv")
    trained = experiments.TrainedModel.load("data-model.npz")
    inputs, _ = experiments.load_like(trained.encoding, "open.csv", None)
    epoch = datetime.date(1970, 1, 1)
    expected = [(datetime.date(2024, m, d) - epoch).days for m, d in ((5, 4), (3, 2))]
    assert inputs[:, 0].tolist() == expected
    assert run("predict", "data-model.npz", "open.csv")[0] == 0
    other = "30/4/2024" if first == "month" else "4/30/2024"
    write(names + f"{other}\t1.5\n", "wrong.csv")
    status, _, error = run("predict", "data-model.npz", "wrong.csv")
    assert status == 2
    assert f"'{other}' is no date of the calendar with the {first} first, as in the rows that were trained on" in error


@pytest.mark.parametrize("rows", [8, 30_000])
def test_a_text_that_says_na_may_be_meant(rows, run):
    """NA between quotes is Namibia where --missing-values says so, in the file to predict as well."""
    countries = ["NA", "DE", "FR", "NA"] * (rows // 4)
    write("country,y\n" + "".join(f'"{name}",{(name == "NA") + k % 7 / 10}\n' for k, name in enumerate(countries)))
    with pytest.raises(ValueError, match=r"data.csv, line 2, column 'country': the value is missing \('NA'\)"):
        experiments.load("data.csv")
    data = experiments.load("data.csv", missing_values=())
    assert data.encoding.feature_names == ["country=DE", "country=FR", "country=NA"]
    assert data.inputs[:, 2].tolist() == [name == "NA" for name in countries]
    options = ["--n-steps", "300", "--n-particles", "20", "--l2", "0.001", "--quiet"]
    assert run("train", "data.csv", *options, "--missing-values", "")[0] == 0
    assert run("predict", "data-model.npz", "data.csv")[0] == 0
