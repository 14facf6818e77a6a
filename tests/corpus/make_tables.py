"""Bad and odd label tables and JSON, made by code: rows T01-T11.

kind "table" is read by the strict reader alone, "folder" together with five small pictures
(a.png to e.png) and the columns of FOLDER_HEADER, "date" is one cell, "json" one document.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

from make_images import Row, file, grey_lines, noise, png

PICTURES = ("a", "b", "c", "d", "e")
FOLDER_HEADER = "file,patient,label,lesion,grade,grade_system,split"
LABELS = {"benign": "benign", "malignant": "malignant", "恶性": "malignant"}


def folder(*lines: str) -> Callable[[Path], Path]:
    """A folder of five pictures and a table with these lines after the header."""

    def build(place: Path) -> Path:
        for index, name in enumerate(PICTURES):
            pixels = noise(20 + index, 30)
            (place / f"{name}.png").write_bytes(png(20 + index, 30, grey_lines(pixels)))
        path = place / "labels.csv"
        path.write_text("\n".join((FOLDER_HEADER, *lines, "")), encoding="utf-8")
        return path

    return build


def _rest(*names: str) -> tuple[str, ...]:
    """Good rows for the pictures a case does not speak of."""
    return tuple(f"{n}.png,other-{n},benign,,,," for n in names)


def _xlsx() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
        archive.writestr("xl/vbaProject.bin", b"macro")
    return buffer.getvalue()


def _t(variant: str, build: Callable[[Path], Path], verdict: str, kind: str = "table") -> Row:
    row, _, variant = variant.partition(" ")
    outcome, _, reason = verdict.partition(" ")
    return Row(row, variant.replace(" ", "-"), outcome, reason or None, build, kind)


def _csv(text: str | bytes, name: str = "labels.csv") -> Callable[[Path], Path]:
    return file(name, lambda: text if isinstance(text, bytes) else text.encode())


_BAD = "refused bad-table"

TABLE_ROWS: tuple[Row, ...] = (
    _t("T01 007 and 7", folder("a.png,007,benign,,,,", "b.png,7,benign,,,,", *_rest(*"cde")),
       "used-with-warning identity-conflict", "folder"),
    _t("T01 space and width", folder("a.png,p1,benign,,,,", "b.png,ｐ１,benign,,,,", *_rest(*"cde")),
       "used-with-warning identity-conflict", "folder"),
    _t("T01 different ids", folder(*_rest(*"abcde")), "used", "folder"),
    _t("T02 row too long", _csv("id,label\n1,benign\n2,benign,extra\n"), _BAD),
    _t("T02 row too short", _csv("id,label\n1,benign\n2\n"), _BAD),
    _t("T02 blank line inside", _csv("id,label\n1,benign\n\n2,benign\n"), _BAD),
    _t("T02 blank lines at the end", _csv("id,label\n1,benign\n\n\n"), "used"),
    _t("T02 crlf", _csv("id,label\r\n1,benign\r\n"), "used"),
    _t("T03 semicolons", _csv("id;label\n1;benign\n"), _BAD),
    _t("T03 decimal comma", _csv("id;size\n1;0,5\n"), _BAD),
    _t("T03 tabs", _csv("id\tlabel\n1\tbenign\n"), _BAD),
    _t("T04 bom", _csv(b"\xef\xbb\xbfid,label\n1,benign\n"), "used"),
    _t("T04 utf-16", _csv("id,label\n1,benign\n".encode("utf-16")), _BAD),
    _t("T04 cp1252", _csv("id,label\nMüller,benign\n".encode("cp1252")), _BAD),
    _t("T04 gb18030", _csv("id,label\n1,恶性\n".encode("gb18030")), _BAD),
    _t("T04 utf-8 words", _csv("id,label\nMüller,恶性\n"), "used"),
    _t("T05 nul", _csv(b"id,label\n1,be\0nign\n"), _BAD),
    _t("T05 escape", _csv("id,label\n1,\x1b[2Jbenign\n"), _BAD),
    _t("T05 open quote", _csv('id,label\n1,"benign\n2,benign\n'), _BAD),
    _t("T05 text after quote", _csv('id,label\n1,"be"nign\n'), _BAD),
    _t("T05 quoted line break", _csv('id,label\n1,"be\nnign"\n2,x\n'), "used"),
    _t("T05 a million columns", _csv(",".join(f"c{i}" for i in range(1_000_000)) + "\n"), _BAD),
    _t("T05 thousand columns", _csv(",".join(f"c{i}" for i in range(1000)) + "\n"), "used"),
    _t("T05 thousand and one", _csv(",".join(f"c{i}" for i in range(1001)) + "\n"), _BAD),
    _t("T05 long cell", _csv("id,label\n1," + "x" * 65_537 + "\n"), _BAD),
    _t("T05 cell at limit", _csv("id,label\n1," + "x" * 65_536 + "\n"), "used"),
    _t("T05 endless cell", _csv("id,label\n1," + "x" * 1_000_000 + "\n"), _BAD),
    _t("T05 formula", _csv("id,label\n1,=cmd|' /C calc'!A0\n"), _BAD),
    _t("T05 at formula", _csv("id,label\n1,@SUM(A1)\n"), _BAD),
    _t("T05 plus formula", _csv("id,label\n1,+1+cmd|' /C calc'!A0\n"), _BAD),
    _t("T05 negative number", _csv("id,label\n1,-3.5\n"), "used"),
    _t("T05 doubled column", _csv("id,label,label\n1,a,b\n"), _BAD),
    _t("T05 column twice in case", _csv("id,ID\n1,2\n"), _BAD),
    _t("T05 column without name", _csv("id,\n1,2\n"), _BAD),
    _t("T05 empty file", _csv(""), _BAD),
    _t("T06 exact labels", folder("a.png,p,malignant,,,,", *_rest(*"bcde")), "used", "folder"),
    _t("T06 mapped script", folder("a.png,p,恶性,,,,", *_rest(*"bcde")), "used", "folder"),
    _t("T06 case and space", folder("a.png,p,Malignant ,,,,", *_rest(*"bcde")),
       "refused unknown-label", "folder"),
    _t("T06 number", folder("a.png,p,1,,,,", *_rest(*"bcde")), "refused unknown-label", "folder"),
    _t("T06 empty", folder("a.png,p,,,,,", *_rest(*"bcde")), "refused unknown-label", "folder"),
    _t("T06 NA", folder("a.png,p,NA,,,,", *_rest(*"bcde")), "refused unknown-label", "folder"),
    _t("T06 two labels", folder("a.png,p,benign,1,,,", "b.png,p,malignant,1,,,", *_rest(*"cde")),
       _BAD, "folder"),
    _t("T06 two lesions", folder("a.png,p,benign,1,,,", "b.png,p,malignant,2,,,", *_rest(*"cde")),
       "used", "folder"),
    _t("T07 split overlap", folder("a.png,p,benign,,,,train", "b.png,p,benign,,,,test",
       *_rest(*"cde")), "refused split-overlap", "folder"),
    _t("T07 split apart", folder("a.png,p,benign,,,,train", "b.png,q,benign,,,,test",
       *_rest(*"cde")), "used", "folder"),
    _t("T07 file twice", folder("a.png,p,benign,,,,", "a.png,p,benign,,,,", *_rest(*"bcde")),
       "used-with-warning duplicate-file", "folder"),
    _t("T07 file of two patients", folder("a.png,p,benign,,,,", "a.png,q,benign,,,,",
       *_rest(*"bcde")), _BAD, "folder"),
    _t("T07 file missing", folder("x.png,p,benign,,,,", *_rest(*"abcde")),
       "used-with-warning missing-file", "folder"),
    _t("T07 file outside", folder("../../etc/passwd,p,benign,,,,", *_rest(*"abcde")),
       "used-with-warning missing-file", "folder"),
    _t("T07 extra file", folder(*_rest(*"abcd")), "refused not-in-table", "folder"),
    _t("T08 with system", folder("a.png,p,malignant,,II,FUHRMAN,", "b.png,q,malignant,,G2,WHO_ISUP,",
       *_rest(*"cde")), "used", "folder"),
    _t("T08 without system", folder("a.png,p,malignant,,2,,", *_rest(*"bcde")), _BAD, "folder"),
    _t("T08 two thirds", folder("a.png,p,malignant,,2/3,FUHRMAN,", *_rest(*"bcde")), _BAD, "folder"),
    _t("T08 unknown system", folder("a.png,p,malignant,,2,WHO,", *_rest(*"bcde")), _BAD, "folder"),
    _t("T08 system without grade", folder("a.png,p,malignant,,,FUHRMAN,", *_rest(*"bcde")), _BAD,
       "folder"),
    _t("T09 iso", _csv("2024-02-29"), "used", "date"),
    _t("T09 day first", _csv("03/04/2024"), _BAD, "date"),
    _t("T09 dots", _csv("3.4.2024"), _BAD, "date"),
    _t("T09 serial", _csv("45352"), _BAD, "date"),
    _t("T09 no such day", _csv("2023-02-29"), _BAD, "date"),
    _t("T09 compact", _csv("20240229"), _BAD, "date"),
    _t("T09 other digits", _csv("２０２４-02-29"), _BAD, "date"),
    _t("T10 xlsx", _csv(_xlsx(), "labels.xlsx"), _BAD),
    _t("T10 xlsx named csv", _csv(_xlsx()), _BAD),
    _t("T10 xls", _csv(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(64)), _BAD),
    _t("T10 gzip", _csv(b"\x1f\x8b\x08" + bytes(20)), _BAD),
)  # fmt: skip


# --- JSON: what a strict reader must refuse (n) and accept (y), after RFC 8259 -----------------

_N_TEXT = (
    "", " ", "[", "]", "{", "}", "[1,]", "[,1]", "[1,,2]", "[,]", "[1 2]", "[1", "[1}", "{]",
    '{"a":1,}', '{"a" 1}', '{"a":}', '{"a"}', "{a:1}", "{'a':1}", '{1:1}', '{"a":1 "b":2}',
    '{"a":1,,"b":2}', '{"a"::1}', '{:1}', '{"a":1}}', '[1]]', "[1]x", "[1] []", '"a" "b"',
    "nul", "NULL", "True", "FALSE", "tru", "[truefalse]", "NaN", "[NaN]", "Infinity",
    "-Infinity", "[-NaN]", "01", "-01", "[012]", "1.", ".5", "-.5", "1.e3", "1e", "1e+", "1E-",
    "+1", "--1", "- 1", "-", "0x1F", "1_000", "1,5", "1e1.5", "[1e999]", "[-1e999]", "１",
    '"', '"a', "'a'", '"\\x41"', '"\\u12"', '"\\u12G4"', '"\\uD800"', '"\\uDFFF"', '"\\', '"\\a"',
    '"\t"', '"\n"', '"a\x00b"', '"\x1f"', "abc", "*", "[*]", "// a\n[1]", "[1/* a */]", "#\n1",
    "<html>", "[\u00a01]", "[\x0c1]", "\u2060[1]", "\\u005b1]", '["a",\n4\n,1,', '[\n1\n,1',
    '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', '{"\\u0061":1,"a":2}', "[" * 200_000, '{"a":' * 200_000,
    "[" + "9" * 5000 + "]", '["\\uD800\\n"]', '["\\uDC00\\uD800"]', '{"a":1', '{"a":"', "{,}",
    '[""', '["a', '["x"],', "[-]", "[-a]", "[1e]", "[0.e1]", "[2.e+3]", "[1eE2]", "[1+2]",
)  # fmt: skip
_N_BYTES = (
    b"\xff", b"\xff\xfe[\0]\0", b"\xfe\xff\0[\0]", b'["\xe5"]', b'["\xff"]', b'["\xed\xa0\x80"]',
    b'["\xc0\xaf"]', b'["\xf4\xbf\xbf\xbf"]', b"\xef\xbb", b"[1]\0", b"\xef\xbb\xbf\xef\xbb\xbf[1]",
    b"\x1f\x8b\x08", b"[\xa0]",
)  # fmt: skip
_Y_TEXT = (
    "[]", "{}", "[[]]", "[{}]", '{"":0}', "null", "true", "false", "0", "-0", "-1", "1.5", "-0.0",
    "1e5", "1E+2", "1e-2", "0e1", "123.456e78", "1e-999", '""', '"a"', " [1] ", "\n\t\r[1]\n", "[1,2,3]",
    '{"a":1,"b":2}', '{"a":{"b":[1,2,{"c":null}]}}', '"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\u0041"',
    '"\\u0000"', '"\\uD83D\\uDE00"', '"😀"', '"é"', '"\u2028\u2029"', '"\u007f"', '["\\u005C"]',
    '[1,null,"a",true]', "[" * 60 + "]" * 60, '{"A":1,"a":2}', "[ ]", "{ }", '[1\n,\n2]',
    '["\ufeff"]', "[20e1]", "[-123]", "9007199254740993", "[" + "9" * 300 + "]", '["asd "]',
    '{"title":"\\u041f\\u043e"}', '["\\uFFFF"]', '["\\u0060"]',
)  # fmt: skip

JSON_REFUSED: tuple[bytes, ...] = (*(t.encode() for t in _N_TEXT), *_N_BYTES)
JSON_TAKEN: tuple[bytes, ...] = (*(t.encode() for t in _Y_TEXT), b"\xef\xbb\xbf[1]")

JSON_ROWS: tuple[Row, ...] = (
    *(Row("T11", f"n-{i}", "refused", "bad-json", file("a.json", lambda d=d: d), "json")
      for i, d in enumerate(JSON_REFUSED)),
    *(Row("T11", f"y-{i}", "used", None, file("a.json", lambda d=d: d), "json")
      for i, d in enumerate(JSON_TAKEN)),
)  # fmt: skip

TABLE_ROWS = (*TABLE_ROWS, *JSON_ROWS)
