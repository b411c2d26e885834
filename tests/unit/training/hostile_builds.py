"""Run in an empty folder: rebuilds a checkpoint's network and data set from configurations with one hostile value.

Prints, as JSON lines, what was tried, how it ended, its seconds and bytes, and what it wrote, fetched or started.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.cli.evaluate import on_this_machine
from r3cnn.cli.parts import build_data
from r3cnn.training.build import TRUSTED_TARGETS, instantiate
from r3cnn.training.checkpoint import KEY, CheckpointInfo, Preprocessing, build_model, restore_model

TRACES = (
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.truncate",
    "os.fork",
)
TRACES += (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "socket.connect",
    "socket.getaddrinfo",
)
TRACES += ("shutil.rmtree", "shutil.move", "shutil.copyfile")
HOSTILE = (
    *(
        -1,
        0,
        10**5,
        10**9,
        2**62,
        10**30,
        1e308,
        -0.5,
        True,
        None,
        "",
        "abc",
        "evil",
        "../evil",
        "http://127.0.0.1:9/x",
    ),
    *("hf_hub:evil/evil", "local-dir:.", "s3://evil/x", "${oc.env:HOME}", [], [10**9] * 3, [-1, "x"], {"a": 1}),
    *({"_target_": "os.system", "command": "touch evil"}, {"_target_": "torch.hub.load", "_partial_": True}),
    {"_target_": "r3cnn.data.shapes.write_shapes", "folder": "evil", "train": 3, "val": 3, "seed": 0},
)
NETWORK = (
    "data.prepare.train=3",
    "data.prepare.val=3",
    "channels=16",
    "fc_channels=32",
    "num_mask_convs=1",
    "mask_iou_head=non_local",
    "roi_extractor=groie",
)
ARGUMENTS = (("folder",), ("root", "classes", "name", "path"), ("in_channels", "depth", "name", "pretrained"))
traces: list[str] = []


def note(event: str, arguments: tuple[object, ...]) -> None:
    writes = event == "open" and (str(arguments[1]) not in ("r", "rb", "None") or int(str(arguments[2])) & 3)
    if (writes and "__pycache__" not in str(arguments[0])) or event in TRACES:
        traces.append(f"{event} {arguments[:2]}")


def leaves(node: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Places of all values but targets."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if key not in ("_target_", "_partial_"):
            yield (*path, key)
            yield from leaves(child, (*path, key))


def replaced(node: object, path: tuple[str | int, ...], value: object) -> object:
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else dict(enumerate(node)) if isinstance(node, list) else {}
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return [*copy.values()] if isinstance(node, list) else copy


def status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def attempt(name: str, build: object) -> None:
    Path("/proc/self/clear_refs").write_text("5")
    traces.clear()
    before, start = status("VmRSS"), time.process_time()
    try:
        build()  # type: ignore[operator]
        ended = "built"
    except ValueError:
        ended = "refused"
    except Exception as error:
        ended = f"{type(error).__name__}: {error}"
    print(json.dumps([name, ended, time.process_time() - start, status("VmHWM") - before, [*traces]]), flush=True)


def main(folder: Path, tries: int) -> None:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", ["experiment=demo", *NETWORK, "output_dir=out", "augmentation=multi_scale"])
    model, data = plain(config.model), plain(config.data)
    weights = {f"model.{name}": tensor for name, tensor in build_model(model, TRUSTED_TARGETS).state_dict().items()}
    image = Preprocessing([1, 2, 3], [1, 2, 3], (64, 96))
    limit = status("VmSize") + 8 * 10**9
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    places = [("model", place) for place in leaves(model)] + [("data", place) for place in leaves(data)]
    chance = random.Random(0)
    chosen = [(*chance.choice(places), value) for _ in range(tries) for value in [chance.choice(HOSTILE)]]
    path = folder / "hostile.ckpt"
    sys.addaudithook(note)
    for part, place, value in chosen:
        name = f"{part}.{'.'.join(map(str, place))}={value!r}"
        if part == "model":
            info = CheckpointInfo(replaced(model, place, value), data, ("a", "b", "c"), (1, 2, 3), image)  # type: ignore[arg-type]
            torch.save({KEY: info.to_dict(), "state_dict": weights}, path)
            attempt(name, lambda: restore_model(path))
        else:
            other = replaced({**data, "root": str(folder)}, place, value)
            attempt(name, lambda other=other: build_data(on_this_machine(other), TRUSTED_TARGETS))  # type: ignore[misc]
    for target in TRUSTED_TARGETS:
        for value in HOSTILE:
            for names in ARGUMENTS:
                node = {"_target_": target, **dict.fromkeys(names, value)}
                with torch.device("meta"):
                    attempt(f"{target}({names}={value!r})", lambda node=node: instantiate(node, TRUSTED_TARGETS))  # type: ignore[misc]


main(Path(sys.argv[1]), int(sys.argv[2]))
