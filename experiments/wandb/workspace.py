"""The dashboard of the project as code: what a reader of the paper wants to see, as a workspace and as a report.

    pip install 'r3cnn[workspaces]'
    python experiments/wandb/workspace.py ENTITY [PROJECT]           # prints what would be sent
    python experiments/wandb/workspace.py ENTITY [PROJECT] --save    # sends it; needs a login

Tests build and serialise both and compare the names in the panels with what a run logs. That a server shows them as
meant is not tested: none was at hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from pydantic import BaseModel

STEP = "trainer/global_step"
LOOP = "by_loop/loop"
NUM_LOOPS = 3  # whose curves have a panel of their own; more are found under their names
LOSSES = ("cls", "box", "mask")
PIXELS_PER_COLUMN = 8  # of a report's grid of 24 columns: three panels in a row
TITLE = "R3-CNN: loops, heads and what they cost"


def over_loops() -> list[wr.LinePlot]:
    """AP and balance of the RoIs after each loop; one line per run."""
    return [
        wr.LinePlot(title="Mask AP after each loop", x=LOOP, y=["by_loop/mask_ap"], title_x="loop"),
        wr.LinePlot(title="Box AP after each loop", x=LOOP, y=["by_loop/box_ap"], title_x="loop"),
        wr.LinePlot(
            title="IoU balance of the RoIs in training (1: even)",
            x=LOOP,
            y=["by_loop/roi_balance_train"],
            title_x="loop",
        ),
    ]


def over_time() -> list[wr.LinePlot]:
    """AP in the course of training: the result, and masks after every loop."""
    loops = [f"val/loop{loop}/mask_ap" for loop in range(1, NUM_LOOPS + 1)]
    return [
        wr.LinePlot(title="Mask AP", x=STEP, y=["val/mask_ap"]),
        wr.LinePlot(title="Box AP", x=STEP, y=["val/box_ap"]),
        wr.LinePlot(title="Mask AP by loop", x=STEP, y=loops),
    ]


def losses() -> list[wr.LinePlot]:
    """The loss and its parts, each with one line per loop."""
    parts = [
        wr.LinePlot(
            title=f"{part} loss by loop", x=STEP, y=[f"train/loop{loop}/{part}" for loop in range(1, NUM_LOOPS + 1)]
        )
        for part in LOSSES
    ]
    return [wr.LinePlot(title="Loss", x=STEP, y=["train/loss"]), *parts]


def rois() -> list[wr.LinePlot]:
    """What the loops do to the RoIs."""
    return [
        wr.LinePlot(title=title, x=STEP, y=[f"train/loop{loop}/{name}" for loop in range(1, NUM_LOOPS + 1)])
        for title, name in (
            ("IoU balance by loop", "roi_balance"),
            ("Share of positive RoIs by loop", "roi_positive_share"),
            ("IoU that refinement gains, by loop", "roi_iou_gain"),
        )
    ]


def cost() -> list[wr.ScatterPlot | wr.BarPlot]:
    """Size, speed and memory beside precision."""
    parameters, mask_ap = wr.SummaryMetric("parameters/trainable"), wr.SummaryMetric("final/mask_ap")
    speed = wr.SummaryMetric("speed/eval_images_per_second")
    return [
        wr.ScatterPlot(title="Parameters and mask AP", x=parameters, y=mask_ap),
        wr.ScatterPlot(title="Images per second in evaluation and mask AP", x=speed, y=mask_ap),
        wr.BarPlot(title="Images per second in training", metrics=["speed/train_images_per_second"]),
        wr.BarPlot(title="Peak memory in GiB", metrics=["memory/peak_gib"]),
    ]


SECTIONS = {
    "Loops": over_loops,
    "Precision": over_time,
    "Losses per loop": losses,
    "RoIs": rois,
    "Cost": cost,
}


def build_workspace(entity: str, project: str) -> ws.Workspace:
    """The saved view of the project; the seeds of an experiment are one line with their spread."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name="R3-CNN",
        sections=[ws.Section(name=name, panels=panels(), is_open=True) for name, panels in SECTIONS.items()],
        settings=ws.WorkspaceSettings(group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(filters=[ws.Metric("JobType") == "train"], groupby=[ws.Config("experiment")]),
    )


def build_report(entity: str, project: str) -> wr.Report:
    """The same panels as a page."""
    runs = wr.Runset(name="Training", filters=[ws.Metric("JobType") == "train"], groupby=["config.experiment"])
    blocks: list[wr.interface.BlockTypes] = [wr.TableOfContents()]
    for name, panels in SECTIONS.items():
        drawn = panels()
        for number, panel in enumerate(drawn):
            row, column = divmod(number, 3)
            panel.layout = wr.Layout(x=column * PIXELS_PER_COLUMN, y=6 * row, w=PIXELS_PER_COLUMN, h=6)
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=drawn)]
    return wr.Report(entity=entity, project=project, title=TITLE, blocks=blocks)


def names_shown() -> set[str]:
    """Every name of a run that a panel asks for."""
    names: set[str] = set()
    for panel in (panel for panels in SECTIONS.values() for panel in panels()):
        if isinstance(panel, wr.LinePlot):
            names |= {str(panel.x), *map(str, panel.y)}
        elif isinstance(panel, wr.ScatterPlot):
            names |= {axis.name for axis in (panel.x, panel.y) if isinstance(axis, wr.SummaryMetric)}
        else:
            names |= {str(metric) for metric in panel.metrics}
    return names


def serialised(page: ws.Workspace | wr.Report) -> Mapping[str, object]:
    """What would be sent to the server.

    Raises:
        TypeError: If the library's own form of it is none that can be written.
    """
    model = page._to_model()
    if not isinstance(model, BaseModel):
        raise TypeError(f"{type(page).__name__} became a {type(model).__name__}")
    return json.loads(model.model_dump_json(by_alias=True, exclude_none=True))


def main() -> None:
    """Prints or sends both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entity", help="user or team")
    parser.add_argument("project", nargs="?", default="r3cnn")
    parser.add_argument("--save", action="store_true", help="send them to the server")
    chosen = parser.parse_args()
    for page in (build_workspace(chosen.entity, chosen.project), build_report(chosen.entity, chosen.project)):
        if chosen.save:
            page.save()
            print(page.url)
        else:
            print(json.dumps(serialised(page), indent=2))


if __name__ == "__main__":
    main()
