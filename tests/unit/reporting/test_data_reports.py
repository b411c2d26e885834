from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from r3cnn.reporting.console import terminal
from r3cnn.reporting.data_sets import QUANTITIES, Found, draw_input, number_text, plot_statistics, print_check
from r3cnn.structures import InstanceMasks, Target


def found(problems: list[str], *, is_read: bool = True, objects: int = 5) -> Found:
    histogram = {"edges": [1.0, 2.0, 4.0], "counts": [objects, 1]}
    quantity = {"min": 1.0, "q05": 1.1, "median": 2.5, "mean": 3.25, "q95": 120.4, "max": 4.0, "histogram": histogram}
    statistics = {
        "images": 7,
        "images_without_objects": 1,
        "objects": objects,
        "crowds": 2,
        "area_share": {"small": 0.5, "medium": 0.3, "large": 0.2},
        "per_class": {"rare": {"objects": 1, "images": 1}, "common": {"objects": objects, "images": 3}},
        "quantity": dict.fromkeys(QUANTITIES, quantity),
    }
    return {"file": "a.json", "problems": problems, "notes": ["odd"], "statistics": statistics if is_read else {}}


def printed(content: dict[str, Found], max_lines: int = 3) -> str:
    console = terminal(file=io.StringIO(), width=140)
    print_check(content, max_lines, console)
    return console.file.getvalue()


def test_the_first_problems_are_printed_and_the_others_counted() -> None:
    text = printed({"train": found([f"image {n} [bold]is bad" for n in range(5)]), "val": found([])})
    assert "image 2 [bold]is bad" in text
    assert "image 3" not in text
    assert "… and 2 more" in text
    assert "5 problems" in text
    assert "7 images (1 without objects), 5 objects (50 % small, 30 % medium, 20 % large), 2 crowds" in text
    assert text.index("common") < text.index("rare")


def test_a_file_that_cannot_be_read_has_its_problem_and_no_table() -> None:
    text = printed({"train": found(["no JSON"], is_read=False)})
    assert "no JSON" in text
    assert "Sizes" not in text


def test_numbers_are_short_and_missing_ones_a_dash() -> None:
    assert [number_text(value) for value in (None, 3.0, 0.123, 99.5, 1333.4)] == ["–", "3", "0.12", "99.50", "1333"]


def test_statistics_of_one_and_of_two_data_sets_become_different_pictures(tmp_path: Path) -> None:
    plot_statistics({"train": found([])}, tmp_path / "one.png")
    plot_statistics({"train": found([]), "val": found([], objects=50)}, tmp_path / "two.png")
    one, two = (np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("one.png", "two.png"))
    assert one.std() > 10
    assert one.shape != two.shape or np.abs(one - two).max() > 50


def test_the_padding_of_an_input_has_the_mean_colour_and_its_objects_are_drawn(tmp_path: Path) -> None:
    masks = torch.zeros(1, 320, 640, dtype=torch.uint8)
    masks[0, 100:200, 100:200] = 1
    target = Target(
        torch.tensor([[100.0, 100, 200, 200]]),
        torch.tensor([0]),
        InstanceMasks.from_dense(masks),
        torch.tensor([[220.0, 20, 280, 80]]),
    )
    image = torch.zeros(3, 320, 320, dtype=torch.uint8)
    draw_input(image, target, ["a", "b"], tmp_path / "x.png", canvas=(320, 640), padding=(123.675, 116.28, 103.53))
    pixels = np.asarray(Image.open(tmp_path / "x.png"))
    assert pixels.shape == (320, 640, 3)
    assert pixels[150, 500].tolist() == [124, 116, 104]
    assert pixels[150, 150].sum() > 100
    assert pixels[50, 20].tolist() == [0, 0, 0]
    assert (pixels[20, 220:280] == 255).all(axis=1).any()
