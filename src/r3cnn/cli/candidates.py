"""Which experiments have the network that given weights belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from r3cnn.cli.configs import plain
from r3cnn.interop.mmdetection import spare_in
from r3cnn.interop.recursion import StatedLoops
from r3cnn.interop.translation import Fit, Shape, compare, shapes_of
from r3cnn.schedule import LoopSchedule
from r3cnn.training.build import instantiate
from r3cnn.training.checkpoint import build_shapes

UNDECIDED = "output_dir=undecided"  # what Hydra decides in a run
SCALES = "/scale/"  # experiments that choose one are recipes, whose networks nobody else trains


@dataclass(frozen=True)
class Network:
    """Network of an experiment.

    Attributes:
        shapes: Shape of every tensor in its state.
        model: Its resolved configuration.
    """

    shapes: Mapping[str, Shape]
    model: Mapping[str, object]

    def fit(self, weights: Mapping[str, Shape]) -> Fit:
        """How weights differ from the network; they may hold what no network of this layout runs."""
        spare = spare_in(weights).difference(self.shapes)
        return compare({key: shape for key, shape in weights.items() if key not in spare}, self.shapes)

    def agrees_with(self, stated: StatedLoops) -> bool:
        """Whether a foreign configuration says nothing else about the loops."""
        schedule = schedule_of(self.model)
        return schedule is None or not stated.contradictions(schedule)


def chosen_experiment() -> str | None:
    """The experiment that the command line named."""
    return HydraConfig.get().runtime.choices.get("experiment")


def network_shapes(config: DictConfig) -> dict[str, Shape]:
    """Shape of every tensor in the state of the configured network, found without memory for it."""
    return shapes_of(build_shapes(plain(config.model), trusted=None).state_dict())


def schedule_of(model: Mapping[str, object]) -> LoopSchedule | None:
    """The loops in the configuration of a network; None if they are of another kind."""
    heads = model.get("roi_heads")
    node = heads.get("schedule") if isinstance(heads, Mapping) else None
    schedule = instantiate(node) if isinstance(node, Mapping) else None
    return schedule if isinstance(schedule, LoopSchedule) else None


def networks(num_classes: int) -> dict[str, Network]:
    """The network of each experiment but the recipes."""
    names = GlobalHydra.instance().config_loader().get_group_options("experiment")
    found = {}
    for name in names:
        if name.startswith("_") or _is_recipe(name):  # what several experiments share has an underscore
            continue
        config = compose("train", [f"experiment={name}", f"num_classes={num_classes}", UNDECIDED])
        found[name] = Network(network_shapes(config), plain(config.model))
    return found


def _is_recipe(name: str) -> bool:
    path = f"experiment/{name}"
    source = next(one for one in GlobalHydra.instance().config_loader().get_sources() if one.is_config(path))
    content = source.load_config(path).config
    defaults = content.get("defaults", []) if isinstance(content, DictConfig) else []
    return any(str(entry).startswith(SCALES) for entry in defaults)


def advice(weights: Mapping[str, Shape], num_classes: int, stated: StatedLoops | None = None) -> str:
    """One sentence: which experiments fit, or which is closest.

    Args:
        weights: Shapes by our names, of all weights that have one.
        num_classes: Classes that they are for.
        stated: What their configuration says about the loops.
    """
    known = networks(num_classes)
    exact = _best(weights, known)
    agreeing = [name for name in exact if known[name].agrees_with(stated or StatedLoops())]
    if exact:
        return f"these weights fit experiment={' or experiment='.join(agreeing or exact)}"
    distances = {name: network.fit(weights).distance for name, network in known.items()}
    closest = min(distances, key=lambda name: distances[name])
    return f"no experiment fits; the closest is experiment={closest}, from which {distances[closest]} tensors differ"


def alternatives(
    weights: Mapping[str, Shape], num_classes: int, stated: StatedLoops, model: Mapping[str, object]
) -> str | None:
    """A note on the other experiments that weights fit as well: shapes cannot tell them apart.

    Args:
        weights: Shapes by our names, of all weights that have one.
        num_classes: Classes that they are for.
        stated: What their configuration says about the loops; experiments that it contradicts are left out.
        model: Configuration of the chosen network.
    """
    known = networks(num_classes)
    others = {
        name: differences(known[name].model, model) for name in _best(weights, known) if known[name].agrees_with(stated)
    }
    texts = [f"experiment={name} (differs in {', '.join(fields)})" for name, fields in others.items() if fields]
    return f"the same weights also fit {', '.join(texts)}; shapes cannot tell which it is" if texts else None


def differences(first: object, second: object, name: str = "") -> list[str]:
    """Names of the fields in which two configurations differ."""
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return [] if first == second else [name]
    keys = dict.fromkeys([*first, *second])
    found = [field for key in keys for field in differences(first.get(key), second.get(key), str(key))]
    return list(dict.fromkeys(found))


def _best(weights: Mapping[str, Shape], known: Mapping[str, Network]) -> list[str]:
    """Networks that the weights fit; of these only those that use all weights, if there are any."""
    exact = [name for name, network in known.items() if network.fit(weights).distance == 0]
    complete = [name for name in exact if all(name_of in known[name].shapes for name_of in weights)]
    return complete or exact
