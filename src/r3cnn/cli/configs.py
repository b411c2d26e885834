"""From Hydra's configuration to plain containers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, ListConfig, OmegaConf

import r3cnn
from r3cnn.names import composed
from r3cnn.run_files import Config

PLAIN_WORDS = re.compile(r"(?!(true|false|null|nan|inf)$)[a-z_][\w-]*( [\w-]+)*", re.IGNORECASE)
UTF_8 = ("utf-8", "surrogatepass")  # names of files that are no UTF-8 hold halves of surrogate pairs
NOTHING = ("false", "null")
NO_NAME = re.compile(r"true|false|[\d.]+", re.IGNORECASE)  # which Hydra refuses for a group without saying which one
ADDED_KEY = re.compile(r"\+\w+(\.\w+)+")  # no group, which has no dot and cannot be added twice
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


def in_words_of_hydra(words: Sequence[str]) -> list[str]:
    """Settings as they are written for other programs, in Hydra's words.

    ``GROUP=false`` and ``GROUP=null`` become the group's ``none`` where it has that, since Hydra takes names alone for
    groups; ``+a.key=value`` may name a key that is there.
    """
    found = []
    for word in words:
        key, _, value = word.partition("=")
        if value.lower() in NOTHING and (config_folder() / key / "none.yaml").is_file():
            word = f"{key}=none"
        elif NO_NAME.fullmatch(value) and key.isidentifier() and (config_folder() / key).is_dir():
            word = f"{key}='{value}'"
        elif ADDED_KEY.fullmatch(key):
            word = f"+{word}"
        found.append(word)
    return found


def register_resolvers() -> None:
    """Makes ``${count:…}``, ``${times:…,…}`` and ``${text:…}`` known.

    The first is the length of a list, 0 for a list that is not there yet; the second a product, rounded to a whole
    number of steps or epochs; the third a string from the hex digits of its UTF-8, see `as_text`.
    """
    OmegaConf.register_new_resolver("count", lambda values: len(values or ()), replace=True)
    OmegaConf.register_new_resolver("times", lambda value, factor: round(value * factor), replace=True)
    OmegaConf.register_new_resolver("text", lambda digits: bytes.fromhex(digits).decode(*UTF_8), replace=True)


def as_text(value: str) -> str:
    """What OmegaConf resolves to ``value`` itself, where it would read ``${…}`` or ``???`` as something else."""
    return f"${{text:'{value.encode(*UTF_8).hex()}'}}" if "${" in value or value == "???" else value


def search_for_the_highest() -> None:
    """Makes ``hydra/sweeper=optuna`` look for the highest mask AP unless it is told a direction; its own is the lowest.

    A yaml of the same name cannot replace a configuration that a plug-in has registered.
    """
    Plugins.instance()  # registers theirs
    try:
        from hydra_plugins.hydra_optuna_sweeper.config import Direction, OptunaSweeperConf
    except ImportError:
        return
    node = OptunaSweeperConf(direction=Direction.maximize)
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=node, provider="r3cnn")


def override_of_classes(classes: Sequence[str]) -> str:
    """What names these classes on the command line, whatever is in their names."""
    return f"data.classes=[{','.join(name if PLAIN_WORDS.fullmatch(name) else quoted(name) for name in classes)}]"


def quoted(text: str) -> str:
    """A value on the command line that Hydra and OmegaConf take as this text."""
    return QuotedString(as_text(text), Quote.single).with_quotes()


def settle(config: DictConfig, known_classes: Sequence[str] | None = None) -> Path:
    """Writes what Hydra decided (the job's folder) and what the data decide (their classes) into ``config``.

    Args:
        config: Configuration of the job; changed in place, once, before anything is built from it.
        known_classes: Classes of a trained network, for a custom data set whose configuration names none.

    Returns:
        Absolute path of the one folder that the job writes into.

    Raises:
        ValueError: For an empty folder, as of a shell variable that is not set: it would mean the current one.
    """
    if config.output_dir == "":
        raise ValueError("output_dir is '': the path of a folder is needed; output_dir=. is the current one")
    output_dir = Path(HydraConfig.get().runtime.output_dir).absolute()
    OmegaConf.update(config, "output_dir", as_text(str(output_dir)))
    settle_folders(config)
    fill_classes(config, known_classes)
    return output_dir


def settle_folders(config: DictConfig) -> None:
    """Makes the folders of the data absolute, since checkpoints keep them and may be used from any folder."""
    for key in DATA_FOLDERS:
        folder = OmegaConf.select(config, key)
        if isinstance(folder, str):
            OmegaConf.update(config, key, as_text(str(Path(folder).expanduser().absolute())))


def fill_classes(config: DictConfig, known_classes: Sequence[str] | None = None) -> None:
    """Gives a custom data set its classes: those of a trained network, or those in its training annotations.

    Raises:
        ValueError: If the annotations cannot be read.
    """
    from r3cnn.data.annotations import classes_of

    data = config.get("data")
    given = data.get("classes", ()) if data is not None else ()
    if given is None:
        file = Path(data.root).expanduser() / Path(data.train.annotations).expanduser()
        set_classes(config, known_classes or classes_of(file))
    elif isinstance(given, ListConfig) and isinstance(names := OmegaConf.to_container(given, resolve=True), list):
        set_classes(config, [composed(str(name)) for name in names])


def set_classes(config: DictConfig, classes: Sequence[str]) -> None:
    """Writes the names of the classes into ``config``; they are text, whatever they look like."""
    OmegaConf.update(config, "data.classes", [as_text(name) for name in classes])


def path_of(config: DictConfig, key: str) -> Path:
    """The path that a setting names.

    Raises:
        ValueError: For null, a list or anything else that is no path.
    """
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"{key} is {value!r}: the path of a file or folder is needed")
    return Path(str(value))


def plain(node: object) -> Config:
    """Resolved plain copy of a mapping node.

    Raises:
        ValueError: If it is no mapping.
    """
    content = OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node
    if not isinstance(content, dict):
        raise ValueError(f"a mapping is needed, got {content!r}")
    return {str(key): value for key, value in content.items()}
