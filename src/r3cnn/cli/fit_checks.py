"""Whether a foreign checkpoint is one of the chosen network, as far as its names, shapes and configuration tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from r3cnn.cli.candidates import advice, chosen_experiment, schedule_of
from r3cnn.cli.configs import override_of_classes
from r3cnn.interop import mmdetection, torchvision
from r3cnn.interop.image_norm import ImageNorm
from r3cnn.interop.recursion import StatedLoops
from r3cnn.interop.translation import Shape, Translation, compare, shapes_of, shortened

ROWS = "roi_heads.box_heads.0.logits.weight"  # one per class, and one for the background


@dataclass(frozen=True)
class Source:
    """A foreign checkpoint under our names.

    Attributes:
        translation: Its weights.
        layout: What kind of checkpoint it is.
        shapes: Of all its weights that have a name here, whether the chosen network takes them or not.
        classes: Name of each label, None if it does not say.
        norm: Normalisation of its input and where that was found, None if it does not say.
        loops: What its configuration says about the loops.
        others: Entries of the file beside the weights.
    """

    translation: Translation
    layout: str
    shapes: Mapping[str, Shape]
    classes: tuple[str, ...] | None = None
    norm: tuple[ImageNorm, str] | None = None
    loops: StatedLoops = field(default_factory=StatedLoops)
    others: tuple[str, ...] = ()


def num_classes_of(shapes: Mapping[str, Shape]) -> int | None:
    """Classes that weights are for; None if they do not show it."""
    rows = shapes.get(ROWS, ())
    return rows[0] - 1 if len(rows) == 2 else None


def check_fit(source: Source, network: Mapping[str, Shape], name: str) -> None:
    """Refuses weights that do not fit the chosen network to the last tensor.

    Args:
        source: The weights.
        network: Shapes of the network by name.
        name: What the weights are called in an error.

    Raises:
        ValueError: When they are for another network or other classes, naming keys and the experiments that do fit.
    """
    translation, experiment = source.translation, chosen_experiment()
    _check_code_base(translation, name)
    fit = compare(
        shapes_of(translation.weights), {key: network[key] for key in network if key not in translation.unfilled}
    )
    num_classes, expected = num_classes_of(source.shapes), network[ROWS][0] - 1
    problems = [] if experiment else ["experiment=NAME is missing"]
    if num_classes is not None and num_classes != expected:
        override = override_of_classes(source.classes) if source.classes else "data.classes=[…]"
        problems.append(
            f"they are for {num_classes} classes, the network is for {expected}: name theirs in the order of the "
            f"labels, {override}"
        )
    elif experiment:
        problems += fit.lines(translation.sources)
    if translation.unknown:
        unknown = shortened(translation.unknown)
        problems.append(f"{len(translation.unknown)} keys have no counterpart here: {unknown}")
    if problems:
        where = f"experiment={experiment}" if experiment else "a network yet"
        hint = advice(source.shapes, expected if num_classes is None else num_classes, source.loops)
        if translation.unknown:
            hint += " (apart from the keys without a counterpart)"
        raise ValueError("\n- ".join([f"the weights in {name} do not fit {where}:", *problems, hint]))


def _check_code_base(translation: Translation, name: str) -> None:
    """Names the code base when hardly any key is known."""
    keys = [*translation.sources.values(), *translation.ignored, *translation.unknown]
    if 2 * len(translation.unknown) <= len(keys):
        return
    known = {
        "mmdet": sum(mmdetection.our_name(key) is not None for key in keys),
        "torchvision": sum(torchvision.our_name(key) is not None for key in keys),
    }
    likely = max(known, key=lambda base: known[base])
    is_known = 2 * known[likely] > len(keys)
    hint = f"they look like from={likely}" if is_known else "they are of no code base that from= knows"
    raise ValueError(
        f"{len(translation.unknown)} of {len(keys)} keys in {name} have no counterpart here: "
        f"{shortened(translation.unknown)}\n- {hint}"
    )


def check_loops(source: Source, model: Mapping[str, object], name: str) -> None:
    """Refuses weights whose configuration says that they were trained with other loops.

    Args:
        source: The weights, which fit the network.
        model: Configuration of the network.
        name: What the weights are called in an error.

    Raises:
        ValueError: For a contradiction, naming the experiments that agree or the options that would.
    """
    schedule = schedule_of(model)
    found = source.loops.contradictions(schedule) if schedule else {}
    if not found:
        return
    hint = advice(source.shapes, num_classes_of(source.shapes) or 1, source.loops)
    raise ValueError(
        "\n- ".join(
            [
                f"the configuration in {name} contradicts experiment={chosen_experiment()} in {', '.join(found)}:",
                f"it says {' '.join(found.values())}",
                hint,
            ]
        )
    )
