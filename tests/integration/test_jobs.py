"""The jobs of a sweep: names, folders, and how they are run alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from tiny_runs import Cli

from r3cnn.cli.configs import config_folder, register_resolvers, settle_folders
from r3cnn.cli.jobs import Job, job_hash, job_of, task_config
from r3cnn.cli.local_jobs import run_locally
from r3cnn.cli.sweep import plan, unfinished

DEMO = ("experiment=demo", "output_dir=swept")


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


def composed(*overrides: str) -> DictConfig:
    return compose("train", [*DEMO, *overrides])


def sweep_of(*overrides: str) -> tuple[ConfigLoader, DictConfig]:
    """Hydra's loader and the configuration of a sweep."""
    loader = GlobalHydra.instance().config_loader()
    settings = [*overrides, "hydra.mode=MULTIRUN"]
    return loader, loader.load_configuration("train", settings, run_mode=RunMode.MULTIRUN)


def job(loader: ConfigLoader, sweep: DictConfig, *overrides: str) -> Job:
    return job_of(loader.load_sweep_config(sweep, list(overrides)))


def jobs_of(*batches: Sequence[str], hydra: Sequence[str] = ()) -> list[Job]:
    return [job(*sweep_of(*DEMO, *hydra), *DEMO, *batch) for batch in batches]


@pytest.mark.parametrize(
    "override",
    [
        "output_dir=elsewhere",
        "resume=auto",
        "sweep_name=table1",
        "logger=tensorboard",
        "launcher.parallel=2",
        "pictures=0",
        "launcher.threads=1",
        "hydra.verbose=true",
        "data.workers=1",
        "data.eval_batch_size=1",
        "callbacks.last.every_n_train_steps=1",
        "~callbacks.measurements",
        "evaluation.timeout_minutes=1",
        "trainer.strategy=ddp",
    ],
)
def test_what_changes_no_result_leaves_the_hash_alone(override: str) -> None:
    assert job_hash(composed(override)) == job_hash(composed())


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "trainer.max_steps=349",
        "recursion=r3cnn_2_loops",
        "launcher=ddp",
        "data.root=elsewhere",
        "channels=63",
        "data.batch_size=1",
        "trainer.devices=2",
    ],
)
def test_what_changes_results_changes_the_hash(override: str) -> None:
    assert job_hash(composed(override)) != job_hash(composed())


def test_a_run_has_the_hash_that_its_sweep_gave_it_though_its_folders_are_settled() -> None:
    config = composed("data.root=drawn")
    before = job_hash(config)
    settle_folders(config)
    config.output_dir = str(Path("somewhere").absolute())
    assert config.data.root != "drawn"
    assert job_hash(config) == before


def test_ranks_that_a_launcher_starts_and_ranks_that_are_asked_for_are_the_same_job() -> None:
    two = composed("trainer.devices=2", "trainer.strategy=ddp")
    assert job_hash(composed("launcher=ddp")) == job_hash(two)
    assert job_hash(composed("launcher=ddp", "launcher.ranks=3")) != job_hash(two)


def test_a_job_is_named_by_its_experiment_and_its_configuration() -> None:
    named, other = jobs_of(["seed=0"], ["seed=1"])
    unnamed = job(*sweep_of("data=shapes", "output_dir=swept"), "data=shapes", "output_dir=swept")
    assert named.folder == Path("swept").absolute() / f"demo-{job_hash(composed())}"
    assert other.folder != named.folder
    assert unnamed.folder.name == f"run-{unnamed.hash}"
    assert len(unnamed.hash) == 12


def test_a_job_runs_alone_with_what_it_sets_and_where_configurations_are_looked_for(tmp_path: Path) -> None:
    search = f"hydra.searchpath=[file://{tmp_path}]"
    settings = ["seed=1", "resume=auto", "++output_dir=elsewhere", "~callbacks.rois"]
    (job,) = jobs_of(settings, hydra=[search, "hydra.sweep.dir='x y\\'s'", "hydra.sweeper.max_batch_size=1"])
    folder = str(job.folder).replace("'", "\\'")
    own = [f"output_dir='{folder}'", "resume=auto", "hydra.mode=RUN"]
    assert list(job.arguments) == ["train", "experiment=demo", "seed=1", "~callbacks.rois", *own, search]
    alone = compose("train", list(job.arguments[1:-2]))
    assert job_hash(alone) == job.hash
    assert alone.output_dir == str(job.folder)


def test_a_job_that_two_rows_share_runs_once_and_a_finished_one_not_at_all(tmp_path: Path) -> None:
    hydra = [f"hydra.sweep.dir={tmp_path}"]
    jobs = jobs_of(["seed=0"], ["seed=0", "sweep_name=table3"], ["seed=1"], hydra=hydra)
    assert [job.folder for job in unfinished(jobs)] == [jobs[0].folder, jobs[2].folder]
    jobs[0].folder.mkdir()
    (jobs[0].folder / "result.json").write_text("{}")
    assert [job.folder for job in unfinished(jobs)] == [jobs[2].folder]


def planned(*batches: Sequence[str]) -> list[Job]:
    return plan(*sweep_of(*DEMO), [[*DEMO, *batch] for batch in batches], is_local=True)


def test_no_job_is_started_when_one_of_them_cannot_run() -> None:
    with pytest.raises(CompactHydraException) as raised:
        planned(["seed=0"], ["recursion.iou_thresholds=[0.5,0.6]"], ["trainer.devices=0"])
    text = str(raised.value)
    assert text.startswith("nothing was started")
    assert "iou_thresholds has 2 entries" in text
    assert "trainer.devices is 0" in text
    assert "seed=0:" not in text


CUSTOM = ("data=custom", "data.train.images=x", "data.val.images=x", "data.val.annotations=val.json")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data=custom",), "data.train.images is missing: data.train.images=… is needed"),
        (
            (*CUSTOM, "data.train.annotations=none.json"),
            "data.train.annotations is none.json: there is no {folder}/none",
        ),
        ((*CUSTOM, "data.train.annotations=broken.json"), "broken.json: is not valid JSON"),
        (
            ("data=coco", "num_classes=80"),
            "data.train.annotations is annotations/instances_train2017.json: there is no",
        ),
        (
            ("resume=runs/x.ckpt",),
            "resume is runs/x.ckpt: the jobs of a sweep go on with what lies in their own folders",
        ),
    ],
)
def test_what_a_job_lacks_is_said_before_any_is_started(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    for name, content in {"broken.json": "{", "val.json": "{}"}.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(CompactHydraException) as raised:
        planned([*overrides, f"data.root={tmp_path}"])
    assert message.format(folder=tmp_path) in str(raised.value)


def test_files_that_only_the_nodes_of_a_cluster_have_are_missed_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = ["experiment=mask_rcnn", f"data.root={tmp_path}", "output_dir=swept"]
    assert len(plan(*sweep_of(*row), [row], is_local=False)) == 1
    assert f"there is no {tmp_path}/annotations" in caplog.text


def test_automatic_devices_are_counted_before_a_job_gets_its_name() -> None:
    (job,) = planned(["trainer.accelerator=cpu"])
    assert job.config.trainer.devices == 1
    assert "trainer.devices=1" in job.arguments
    assert job.hash == job_hash(composed("trainer.accelerator=cpu", "trainer.devices=1"))


def test_a_sweep_inside_a_rank_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setitem(os.environ, name, value)
    with pytest.raises(CompactHydraException, match="starts the ranks of its jobs itself"):
        planned(["seed=0"])


def test_the_configuration_of_a_job_is_what_its_command_gets() -> None:
    (job,) = jobs_of(["seed=5"])
    assert "hydra" in job.config
    task = task_config(job.config)
    assert "hydra" not in task
    assert task.seed == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("launcher.ranks=0", "launcher.ranks is 0, but"),
        ("trainer.devices=4", "launcher.ranks is 2, but trainer.devices is 4"),
        ("trainer.num_nodes=2", "launcher.ranks is 2, but trainer.devices is 2 and trainer.num_nodes 2"),
    ],
)
def test_ranks_that_contradict_the_trainer_are_refused_before_anything_is_started(
    override: str, message: str, tmp_path: Path
) -> None:
    jobs = jobs_of(["launcher=ddp", override], hydra=[f"hydra.sweep.dir={tmp_path}"])
    with pytest.raises(CompactHydraException, match=message):
        run_locally(jobs, jobs[0].config.launcher)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "folder"),
    [
        (("-m", "experiment=demo"), "outputs/sweeps/demo"),
        (("-m", "experiment=demo", "output_dir=mine"), "mine"),
        (("experiment=demo", "hydra.mode=MULTIRUN"), "outputs/sweeps/demo"),
        pytest.param(("experiment=demo", "launcher=slurm"), "outputs/sweeps/demo", marks=pytest.mark.slow),
        pytest.param(("sweep=table2", "scale=nuclei"), "outputs/sweeps/nuclei", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_has_a_folder_that_is_the_same_when_it_is_started_again(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: tuple[str, ...], folder: str
) -> None:
    GlobalHydra.instance().clear()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CompactHydraException, match="nothing was started"):
        cli("train", *call, "seed=-1")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")] == [f"{folder}/multirun.yaml"]


def test_a_folder_that_a_sweeper_has_quoted_is_still_that_of_the_scale() -> None:
    """Hydra's sweeper hands overrides on with their braces escaped."""
    quoted = "output_dir=outputs/sweeps/$\\{scale_name\\}"
    quoted_job = job(*sweep_of(*DEMO), "experiment=demo", quoted)
    assert quoted_job.folder.parent == Path("outputs/sweeps/demo").absolute()
