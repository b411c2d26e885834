"""Entries of the ledger as finished runs write them, made up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from r3cnn.evaluation.metrics_format import Metrics, Stats
from r3cnn.reporting.records import DataFacts, Git, Parameters, Record, Speed, Splits
from r3cnn.run_files import RESULT, write_json

MEASURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
TRAIN_2017 = DataFacts("/data/coco/annotations/instances_train2017.json", "a" * 128, 117266, 849949)
VAL_2017 = DataFacts("/data/coco/annotations/instances_val2017.json", "b" * 128, 5000, 36335)


def config(num_loops: int = 3, *, batch_size: int = 16, lr: float = 0.02) -> dict[str, object]:
    """The part of a resolved configuration that reports look at; by default the paper's images per step on one rank."""
    thresholds = [0.5 + 0.1 * loop for loop in range(num_loops)]
    schedule = {"heads": [0] * num_loops, "iou_thresholds": thresholds}
    data = {"root": "/data/coco", "val": {"annotations": "annotations/instances_val2017.json", "images": "val2017"}}
    return {
        "model": {"roi_heads": {"schedule": schedule}},
        "data": {**data, "batch_size": batch_size},
        "optimizer": {"lr": lr, "base_images": 16},
        "trainer": {"accumulate_grad_batches": 1},
        "evaluation": {"max_detections": 100},
    }


def metrics(aps: tuple[float, ...]) -> Metrics:
    """Box AP in percent after each loop; mask AP is 4 less, and nothing large is there to be found."""

    def stats(ap: float) -> Stats:
        return {**dict.fromkeys(MEASURES, ap / 100), "ap_large": None}

    loops = {str(loop): {"box": stats(ap), "mask": stats(ap - 4)} for loop, ap in enumerate(aps, start=1)}
    last = loops[str(len(aps))]
    return {
        "box": last["box"],
        "mask": last["mask"],
        "per_class": {},
        "loops": loops,
        "images": {"seen": 5000, "total": 5000},
    }


def make_record(
    name: str = "r3cnn_naive",
    aps: tuple[float, ...] = (37.0, 40.0, 41.0),
    *,
    seed: int = 0,
    trained: int = 3,
    scale: str = "coco",
    overrides: tuple[str, ...] = (),
    train: DataFacts = TRAIN_2017,
    val: DataFacts = VAL_2017,
) -> Record:
    """A finished run; by default R3-CNN naive at the paper's scale."""
    return Record(
        format=1,
        name=name,
        scale=scale,
        sweep="table1",
        hash="0123456789ab",
        overrides=(f"experiment={name}", f"seed={seed}", *overrides),
        config=config(trained),
        git=Git("c" * 40, False),
        versions={"torch": "2.11.0"},
        device="cpu",
        ranks=1,
        seed=seed,
        data=Splits(train, val),
        parameters=Parameters(44_138_228, 43_912_884),
        train_memory_bytes=6 * 2**30,
        memory_kind="resident",
        images_per_second=Speed(8.0, 5.5),
        checkpoint_mib=336.09,
        metrics=metrics(aps),
        roi_balance={"train": {"1": 0.5, "2": None}},
        seconds={"train": 100.0, "eval": 10.0, "total": 120.0},
    )


def write_record(folder: Path, record: Record) -> Path:
    """``result.json`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(asdict(record), folder / RESULT)
    return folder


def write_records(parent: Path, *records: Record) -> dict[Path, Record]:
    """One folder per record."""
    folders = [parent / f"{record.name}-{number}" for number, record in enumerate(records)]
    return {write_record(folder, record): record for folder, record in zip(folders, records, strict=True)}
