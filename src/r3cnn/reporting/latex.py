"""The paper's tables as a LaTeX document of its own (needs booktabs, caption, graphicx), to take single tables from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from r3cnn.names import visible
from r3cnn.reporting.tables import Cell, Column, Table, marks

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"\ensuremath{\pm}",
    "≥": r"\ensuremath{\geq}",
    "–": "--",
    "…": r"\dots{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
}
SPECIAL_LETTERS = str.maketrans(SPECIAL)
PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage{booktabs}
\usepackage{caption}
\usepackage{graphicx}
\setlength{\parindent}{0pt}
"""
BEGIN = "\\begin{document}\n"
END = "\\end{document}\n"


def to_latex(tables: Sequence[Table]) -> str:
    """Content of ``report.tex``; compiles by itself."""
    body = "\n".join(map(latex_table, tables)) or "No run measures a row of the paper's tables.\n"
    return f"{PREAMBLE}{_declared(body)}{BEGIN}\n{body}\n{END}"


def latex_table(table: Table) -> str:
    """One ``table`` environment, as wide as the page at most, its notes below."""
    align = "".join("r" if column.is_number else "l" for column in table.columns)
    head = [_line(_groups(table.columns)), _rules(table.columns)] if any(each.group for each in table.columns) else []
    headings = _line(
        escape(column.heading) + ("" if column.group else _superscript(column.notes)) for column in table.columns
    )
    rows = [_line(map(_cell, row)) for row in table.rows]
    grid = [r"\toprule", *head, headings, r"\midrule", *rows, r"\bottomrule"]
    notes = [rf"{_superscript((number,))}\,{escape(text)}\par" for number, text in enumerate(table.notes)]
    lines = [
        r"\begin{table}[p]",
        r"\centering",
        rf"\caption*{{{escape(table.title)}; {escape(table.subtitle)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{align}}}",
        *grid,
        r"\end{tabular}}",
        *((r"\par\medskip", r"\begin{minipage}{\linewidth}\footnotesize", *notes, r"\end{minipage}") if notes else ()),
        r"\end{table}",
        r"\clearpage",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Plain text that LaTeX prints as it is, on one line, without ligatures of punctuation."""
    parts = re.split(r"(?<=-)(?=-)|(?<=,)(?=,)|^(?=[\[*])", visible(text))  # the last would end the line before
    return "{}".join(part.translate(SPECIAL_LETTERS) for part in parts)


def _declared(body: str) -> str:
    """Lets pdfLaTeX, which has no fonts for letters beyond Latin, print their codes; LuaLaTeX and XeLaTeX have some."""
    letters = sorted({letter for letter in body if letter > "\u017f"})
    codes = [f"{ord(letter):04X}" for letter in letters]
    lines = [rf"  \DeclareUnicodeCharacter{{{code}}}{{\texttt{{U+{code}}}}}" for code in codes]
    return "\n".join([r"\ifdefined\DeclareUnicodeCharacter", *lines, r"\fi", ""]) if lines else ""


def _cell(cell: Cell) -> str:
    return escape(cell.text) + _superscript(cell.notes)


def _superscript(notes: tuple[int, ...]) -> str:
    return rf"\textsuperscript{{{marks(notes)}}}" if notes else ""


def _line(cells: Iterator[str] | list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _spans(columns: Sequence[Column]) -> Iterator[tuple[str, int, int, tuple[int, ...]]]:
    """Quantity, first and last column from 1, and notes of neighbours that share a quantity."""
    first = 1
    for (group, notes), members in groupby(columns, key=lambda column: (column.group, column.notes)):
        last = first + len(list(members)) - 1
        yield group, first, last, notes
        first = last + 1


def _groups(columns: Sequence[Column]) -> list[str]:
    cells = []
    for group, first, last, notes in _spans(columns):
        text = escape(group) + (_superscript(notes) if group else "")
        cells.append(rf"\multicolumn{{{last - first + 1}}}{{c}}{{{text}}}")
    return cells


def _rules(columns: Sequence[Column]) -> str:
    return " ".join(rf"\cmidrule(lr){{{first}-{last}}}" for group, first, last, _ in _spans(columns) if group)
