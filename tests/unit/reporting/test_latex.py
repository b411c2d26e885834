"""The paper's tables as LaTeX and Markdown source."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from record_samples import make_record, write_records

from r3cnn.reporting.latex import escape as latex_escape
from r3cnn.reporting.latex import latex_table, to_latex
from r3cnn.reporting.markdown import escape as markdown_escape
from r3cnn.reporting.markdown import table_section
from r3cnn.reporting.paper import TABLES, read_paper
from r3cnn.reporting.paper_tables import paper_tables
from r3cnn.reporting.rows import by_setting
from r3cnn.reporting.tables import Cell, Column, Table

SMALL = Table(
    name="small",
    title="50 % & more_less",
    subtitle="ours: x=[1]",
    columns=(
        Column("Model", "name"),
        Column("ours", "measured", "AP#", (0,)),
        Column("paper", "published", "AP#", (0,)),
        Column("Le", "name"),
    ),
    rows=((Cell("R3_CNN|x", notes=(1,)), Cell("1.0 ± 0.1", 1.0), Cell("2.0", 2.0, (0, 1)), Cell("–")),),
    notes=("holds for all", "for some"),
)


@pytest.fixture
def tables(tmp_path: Path) -> list[Table]:
    records = write_records(tmp_path, make_record(), make_record("htc"), make_record(seed=1, aps=(1.0, 2.0, 3.0)))
    ((setting, runs),) = by_setting(records).items()
    return [table for name in TABLES for table in paper_tables(read_paper(), name, setting, runs)]


def columns_of(line: str) -> int:
    """Columns that a line of a tabular spans."""
    spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", line)]
    return sum(spans) + len(re.split(r"(?<!\\)&", line)) - len(spans)


def test_a_small_table_is_what_one_would_write_by_hand() -> None:
    lines = latex_table(SMALL).splitlines()
    first = lines.index(r"\begin{tabular}{lrrl}")
    assert lines[first + 1 : first + 8] == [
        r"\toprule",
        r"\multicolumn{1}{c}{} & \multicolumn{2}{c}{AP\#\textsuperscript{a}} & \multicolumn{1}{c}{} \\",
        r"\cmidrule(lr){2-3}",
        r"Model & ours & paper & Le \\",
        r"\midrule",
        r"R3\_CNN\textbar{}x\textsuperscript{b} & 1.0 \ensuremath{\pm} 0.1 & 2.0\textsuperscript{a,b} & -- \\",
        r"\bottomrule",
    ]
    assert r"\caption*{50 \% \& more\_less; ours: x=[1]}" in lines
    assert r"\textsuperscript{b}\,for some\par" in lines


def test_every_line_of_every_table_has_as_many_cells_as_there_are_columns(tables: list[Table]) -> None:
    for table in tables:
        source = latex_table(table)
        (align,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", source)
        lines = [line for line in source.splitlines() if line.endswith(r"\\")]
        assert len(lines) == len(table.rows) + 2
        assert {columns_of(line) for line in lines} == {len(align)} == {len(table.columns)}


def test_environments_and_braces_of_the_document_are_balanced(tables: list[Table]) -> None:
    source = to_latex(tables)
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", source):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    bare = re.sub(r"\\[{}\\]", "", source)
    assert bare.count("{") == bare.count("}")
    assert source.count(r"\begin{table}") == 5


def test_nothing_but_ascii_is_left_and_what_is_special_is_escaped(tables: list[Table]) -> None:
    assert to_latex(tables).isascii()
    assert latex_escape("a_b 5% #1 {x} \\ ~ ^ $ & <|>") == (
        r"a\_b 5\% \#1 \{x\} \textbackslash{} \textasciitilde{} \textasciicircum{} \$ \& "
        r"\textless{}\textbar{}\textgreater{}"
    )


def test_without_a_table_the_document_says_so() -> None:
    assert "No run measures a row" in to_latex([])


def test_markdown_marks_notes_and_escapes_what_it_would_interpret() -> None:
    assert table_section(SMALL).split("\n\n") == [
        "## 50 % & more\\_less",
        "ours: x=\\[1\\]",
        "| Model | AP#: ours <sup>a</sup> | AP#: paper <sup>a</sup> | Le |\n"
        "| --- | ---: | ---: | --- |\n"
        "| R3\\_CNN\\|x <sup>b</sup> | 1.0 ± 0.1 | 2.0 <sup>a,b</sup> | – |",
        "<sup>a</sup> holds for all  \n<sup>b</sup> for some",
    ]


def test_names_stay_on_their_line_and_begin_no_argument_of_the_line_before() -> None:
    assert latex_escape("[x] a--b ,, \n\x1b \ud83d") == (
        r"{}[x] a-{}-b ,{}, \textbackslash{}n\textbackslash{}x1b \textbackslash{}ud83d"
    )
    assert latex_escape("*–") == "{}*--"


def test_letters_that_pdflatex_has_no_font_for_are_declared() -> None:
    source = to_latex([replace(SMALL, title="猫 é ż")])
    assert r"\DeclareUnicodeCharacter{732B}{\texttt{U+732B}}" in source
    assert source.count("DeclareUnicodeCharacter{") == 1
    assert source.index("DeclareUnicodeCharacter") < source.index(r"\begin{document}") < source.index("猫")


def test_names_in_markdown_stay_in_their_cell() -> None:
    assert markdown_escape("a\nb|c &lt; & $x$ [/x] #") == r"a\\nb\|c \&lt; & \$x\$ \[/x\] \#"
