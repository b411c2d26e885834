"""From Hydra's configuration to plain containers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import r3cnn

Config = dict[str, object]
DATA_FOLDERS = ("data.root", "data.prepare.folder")


def config_folder() -> Path:
    """Where the configurations lie: inside the installed package, or beside ``src`` in a checkout.

    Raises:
        FileNotFoundError: If the installation is incomplete.
    """
    package = Path(r3cnn.__file__).parent
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"r3cnn's conf folder is neither in {package} nor beside its source: reinstall r3cnn")


def register_resolvers() -> None:
    """Makes ``${count:…}`` and ``${times:…,…}`` known.

    The first is the length of a list, 0 for a list that is not there yet; the second a product, rounded to a whole
    number of steps or epochs.
    """
    OmegaConf.register_new_resolver("count", lambda values: len(values or ()), replace=True)
    OmegaConf.register_new_resolver("times", lambda value, factor: round(value * factor), replace=True)


def settle(config: DictConfig, known_classes: Sequence[str] | None = None) -> Path:
    """Writes what Hydra decided (the job's folder) and what the data decide (their classes) into ``config``.

    Args:
        config: Configuration of the job; changed in place, once, before anything is built from it.
        known_classes: Classes of a trained network, for a custom data set whose configuration names none.

    Returns:
        Absolute path of the one folder that the job writes into.
    """
    output_dir = Path(HydraConfig.get().runtime.output_dir).absolute()
    OmegaConf.update(config, "output_dir", str(output_dir))
    settle_folders(config)
    fill_classes(config, known_classes)
    return output_dir


def settle_folders(config: DictConfig) -> None:
    """Makes the folders of the data absolute, since checkpoints keep them and may be used from any folder."""
    for key in DATA_FOLDERS:
        folder = OmegaConf.select(config, key)
        if isinstance(folder, str):
            OmegaConf.update(config, key, str(Path(folder).expanduser().absolute()))


def fill_classes(config: DictConfig, known_classes: Sequence[str] | None = None) -> None:
    """Gives a custom data set its classes: those of a trained network, or those in its training annotations.

    Raises:
        ValueError: If the annotations cannot be read.
    """
    from r3cnn.data.annotations import classes_of

    data = config.get("data")
    if data is not None and data.get("classes", ()) is None:
        file = Path(data.root).expanduser() / Path(data.train.annotations).expanduser()
        classes = known_classes or classes_of(file)[0]
        OmegaConf.update(config, "data.classes", list(classes))


def plain(node: object) -> Config:
    """Resolved plain copy of a mapping node.

    Raises:
        ValueError: If it is no mapping.
    """
    content = OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node
    if not isinstance(content, dict):
        raise ValueError(f"a mapping is needed, got {content!r}")
    return {str(key): value for key, value in content.items()}
