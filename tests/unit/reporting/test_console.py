import io

import pytest

from r3cnn.evaluation.metrics import Metrics
from r3cnn.reporting.console import class_table, percent, print_metrics, terminal

STATS = {"ap": 0.3471, "ap50": 0.5, "ap75": 0.25, "ap_small": None, "ap_medium": 0.1, "ap_large": 1.0}


def metrics_of(classes: dict[str, dict[str, float | None]], seen: int = 5) -> Metrics:
    loops = {"1": {"box": {**STATS, "ap": 0.2}, "mask": STATS}, "2": {"box": STATS, "mask": {**STATS, "ap": 0.123}}}
    return {**loops["2"], "per_class": classes, "loops": loops, "images": {"seen": seen, "total": 5}}


def printed(metrics: Metrics, width: int = 100) -> str:
    console = terminal(file=io.StringIO(), width=width)
    print_metrics(metrics, console)
    return console.file.getvalue()


def test_a_fraction_is_printed_in_percent_and_an_undefined_one_as_a_dash() -> None:
    assert (percent(0.3471), percent(0.0), percent(None)) == ("34.7", "0.0", "–")


def test_the_table_has_a_row_for_boxes_and_masks_of_every_loop() -> None:
    lines = [line.replace("│", " ").split() for line in printed(metrics_of({})).splitlines()]
    rows = [line for line in lines if "box" in line or "mask" in line]
    assert rows == [
        ["1", "box", "20.0", "50.0", "25.0", "–", "10.0", "100.0"],
        ["mask", "34.7", "50.0", "25.0", "–", "10.0", "100.0"],
        ["2", "box", "34.7", "50.0", "25.0", "–", "10.0", "100.0"],
        ["mask", "12.3", "50.0", "25.0", "–", "10.0", "100.0"],
    ]


def test_a_subset_of_the_images_is_stated() -> None:
    assert "3 of 5 images" in printed(metrics_of({}, seen=3))
    assert "(%), 5 images" in printed(metrics_of({}))


def test_classes_come_best_mask_first_and_those_without_ground_truth_are_counted() -> None:
    classes = {"cat": {"box": 0.5, "mask": 0.25}, "dog": {"box": 0.1, "mask": 0.75}, "emu": {"box": None, "mask": None}}
    text = printed(metrics_of(classes))
    assert text.index("dog") < text.index("cat")
    assert "emu" not in text
    assert "without ground truth: 1" in text


@pytest.mark.parametrize("count", [1, 20, 21, 80])
def test_every_class_stands_in_the_table_once(count: int) -> None:
    classes = {f"class{number:02d}": {"box": 0.5, "mask": number / 100} for number in range(count)}
    text = printed(metrics_of(classes))
    assert [text.count(name) for name in classes] == [1] * count


def test_without_ground_truth_there_is_no_table_of_classes() -> None:
    assert class_table(metrics_of({"cat": {"box": None, "mask": None}})) is None


def test_further_rules_of_fusion_have_a_table_each() -> None:
    metrics = metrics_of({})
    text = printed({**metrics, "score_fusions": {"max": metrics["loops"], "last": metrics["loops"]}})
    assert text.count("Average precision") == 3
    assert "score_fusion=max (%)" in text
    assert "score_fusion=last (%)" in text


def test_recall_has_a_row_for_the_proposals_and_every_loop() -> None:
    recall = {"rpn": {"ar100": 0.25, "ar1000": 0.5}, "1": {"ar100": 0.3, "ar1000": None}}
    lines = [
        line.replace("│", " ").split() for line in printed({**metrics_of({}), "proposal_recall": recall}).splitlines()
    ]
    assert ["RPN", "25.0", "50.0"] in lines
    assert ["loop", "1", "30.0", "–"] in lines
    assert "recall" not in printed(metrics_of({}))


def test_a_name_is_text_whatever_it_means_to_rich() -> None:
    names = ("[/x]", "[/bold]", "[red]a", ":smile:", "猫")
    text = printed(metrics_of({name: {"box": 0.5, "mask": 0.5} for name in (*names, "\x1b[2J", "a\nb")}))
    assert all(f" {name} " in text for name in (*names, "\\x1b[2J", "a\\nb"))
    assert "\x1b" not in text
