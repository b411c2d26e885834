"""Hostile files, and a program that reads those of a folder and prints what each cost.

``python hostile_files.py FOLDER`` tells as well whether a file made it start a process, connect or remove anything.
"""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

FORBIDDEN = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "os.remove")
SIDES = (8000, 8100)  # 64.8 megapixels, which the default lets through
Make = Callable[[Path], object]
Chunk = tuple[bytes, bytes]


def png(
    height: int, width: int, depth: int, kind: int, *chunks: tuple[bytes, bytes], interlaced: bool = False
) -> bytes:
    """A PNG image of zeros: ``kind`` 0 grey, 2 RGB, 3 palette, 6 RGBA."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[kind]
    packer, left, parts = zlib.compressobj(9), min(height * (1 + (width * channels * depth + 7) // 8), 2**30), []
    while left > 0:
        parts.append(packer.compress(bytes(min(left, 2**24))))
        left -= 2**24
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    palette = [(b"PLTE", bytes(768))] if kind == 3 else []
    body = [(b"IHDR", header), *palette, *chunks, (b"IDAT", b"".join(parts) + packer.flush()), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in body
    )


def tiff(*tags: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A TIFF header of ``(tag, type, count, value)`` and 4 kB of zeros."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following) + bytes(4096)


def grey_tiff(height: int, width: int, *more: tuple[int, int, int, int], following: int = 0) -> bytes:
    found = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 200)}
    found |= {277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, height * width)}
    found |= {tag: rest for tag, *rest in more}
    return tiff(*((tag, *rest) for tag, rest in found.items()), following=following)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def many_scans(number: int) -> bytes:
    """A progressive JPEG image whose last scan, of a few hundred bytes, is repeated."""
    content = saved(Image.new("L", (8000, 8000)), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * number + content[-2:]


def images() -> Iterator[tuple[str, Make]]:
    """Hostile images by what is hostile about them."""
    Image.init()
    small = Image.new("RGB", (64, 64))
    for kind in sorted(Image.SAVE):
        for mode in ("RGB", "L", "1", "F"):
            try:
                content = saved(small.convert(mode), kind)
            except Exception:
                continue
            yield f"{kind} named png", lambda path, content=content: path.write_bytes(content)
            break
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    of_bytes = {
        "PostScript": script,
        "PostScript in DOS EPS": struct.pack("<IIIIIII", 0xC6D3D0C5, 30, len(script), 0, 0, 0, 0)
        + b"\xff\xff"
        + script,
        "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(200),
        "EMF": b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(200),
        "OLE": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4096),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(400),
        "FITS": b"SIMPLE  =" + b" " * 4000,
        "MPEG": b"\0\0\x01\xb3" + bytes(400),
        "PNG of 3,600 megapixels": png(60_000, 60_000, 1, 0),
        "PNG of 178 megapixels in 16 bits": png(13_300, 13_400, 16, 0),
        "PNG just small enough in 16 bits": png(*SIDES, 16, 0),
        "PNG just small enough in RGBA": png(*SIDES, 8, 6),
        "PNG just small enough in 16-bit RGBA": png(*SIDES, 16, 6),
        "PNG just small enough, interlaced": png(*SIDES, 8, 2, interlaced=True),
        "PNG just small enough of 1 bit, turned": png(
            *SIDES, 1, 0, (b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
        ),
        "PNG with a text of 300 MB": png(9, 9, 8, 0, (b"zTXt", b"a\0\0" + zlib.compress(bytes(300 * 2**20)))),
        "PNG with an international text of 300 MB": png(
            9, 9, 8, 0, (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(300 * 2**20)))
        ),
        "PNG with a profile of 300 MB": png(9, 9, 8, 0, (b"iCCP", b"a\0\0" + zlib.compress(bytes(300 * 2**20)))),
        "PNG with 200 texts of 0.9 MB": png(9, 9, 8, 0, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000)))] * 200),
        "PNG of 2^31 frames": png(9, 9, 8, 0, (b"acTL", struct.pack(">II", 2**31 - 1, 0))),
        "PNG with no side": png(0, 9, 8, 0),
        "GIF of 4,295 megapixels": b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
        + b"\x08\x01\0\0;",
        "GIF whose frame is larger than itself": b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 60000, 60000, 5000, 5000, 0)
        + b"\x08\x01\0\0;",
        "GIF of 5,000 frames": saved(
            Image.new("L", (99, 99)),
            "GIF",
            save_all=True,
            append_images=[Image.new("L", (99, 99), one % 255) for one in range(5000)],
        ),
        "TIFF of 4,000 megapixels": grey_tiff(40_000, 100_000),
        "TIFF of a tile of 900 megapixels": grey_tiff(
            64, 64, (259, 3, 1, 8), (322, 4, 1, 30_000), (323, 4, 1, 30_000), (324, 4, 1, 200), (325, 4, 1, 4000)
        ),
        "TIFF of strips that are not there": grey_tiff(8000, 8000),
        "TIFF of strips of 2^32 rows": grey_tiff(64, 64, (259, 3, 1, 5), (278, 4, 1, 2**32 - 1)),
        "TIFF with a tag of 4 GB": grey_tiff(64, 64, (34675, 7, 2**32 - 1, 0)),
        "TIFF with a tag of 2^31 fractions": grey_tiff(64, 64, (33000, 5, 2**31, 8)),
        "TIFF of 65,535 channels": grey_tiff(64, 64, (277, 3, 1, 65535)),
        "TIFF that follows itself": grey_tiff(64, 64, following=8),
        "TIFF of floats just small enough": saved(Image.new("F", SIDES), "TIFF", compression="tiff_adobe_deflate"),
        "TIFF of integers just small enough, turned": saved(
            Image.new("I", SIDES), "TIFF", compression="tiff_adobe_deflate", tiffinfo={274: 6}
        ),
        "JPEG of 4,290 megapixels": saved(small, "JPEG").replace(
            struct.pack(">HH", 64, 64), struct.pack(">HH", 65500, 65500)
        ),
        "JPEG of 20,000 scans": many_scans(20_000),
        "JPEG of CMYK just small enough": saved(Image.new("CMYK", SIDES), "JPEG"),
        "JPEG with EXIF that names itself": saved(
            small, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
        ),
        "JPEG 2000 of 2^62 pixels": saved(small, "JPEG2000").replace(
            struct.pack(">II", 64, 64), struct.pack(">II", 2**31 - 1, 2**31 - 1)
        ),
        "JPEG 2000 of 65 megapixels": saved(small, "JPEG2000").replace(
            struct.pack(">II", 64, 64), struct.pack(">II", *SIDES)
        ),
        "WebP of 268 megapixels": b"RIFF"
        + struct.pack("<I", 30)
        + b"WEBPVP8L"
        + struct.pack("<I", 10)
        + b"\x2f"
        + struct.pack("<I", 16382 | 16382 << 14)
        + bytes(9),
        "WebP just small enough": saved(Image.new("RGB", (4600, 4700)), "WEBP", lossless=True, method=0),
        "BMP of 4 x 10^18 pixels": saved(small, "BMP").replace(
            struct.pack("<ii", 64, 64), struct.pack("<ii", 2**31 - 1, -(2**31))
        ),
        "PPM of 10^18 pixels": b"P6 1000000000 1000000000 255\n" + bytes(99),
        "PPM of text that is not there": b"P3 9000 9000 255\n1 2 3",
        "PFM of infinite scale": b"Pf 9 9 inf\n" + bytes(324),
    }
    for name, content in of_bytes.items():
        yield name, lambda path, content=content: path.write_bytes(content)
    yield "nothing", lambda path: path.touch()
    yield "a folder", lambda path: path.mkdir()
    yield "a named pipe", os.mkfifo
    yield "a socket", lambda path: socket.socket(socket.AF_UNIX).bind(str(path))
    yield "a link to a device", lambda path: path.symlink_to("/dev/zero")
    yield "a link to a terminal", lambda path: path.symlink_to("/dev/tty")
    yield "a link to itself", lambda path: path.symlink_to(path)
    yield "a file of 100 GB of zeros", lambda path: (path.write_bytes(png(9, 9, 8, 0)), os.truncate(path, 100 * 2**30))


def masks() -> Iterator[tuple[str, str, bytes, tuple[int, int]]]:
    """Name, layout, content, and size of the picture."""
    stripes = np.zeros(SIDES, np.uint8)
    stripes[::2] = 1
    numbers = np.arange(4_000_000, dtype=np.uint16).reshape(2000, 2000) % 65_000
    yield "colours of a grey mask", "folders", png(*SIDES, 8, 6), SIDES
    yield "a mask of 178 megapixels", "index", png(13_300, 13_400, 16, 0), (9, 9)
    yield "numbers of 65 megapixels", "index", png(*SIDES, 16, 0), SIDES
    yield "stripes of 65 megapixels", "index", saved(Image.fromarray(stripes), "PNG"), SIDES
    yield "65,000 instances", "index", saved(Image.fromarray(numbers), "PNG"), numbers.shape
    yield "a script", "index", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", (9, 9)


def annotation_files() -> Iterator[tuple[str, Make]]:
    """Hostile annotation files."""

    def coco(size: tuple[int, int], segmentation: object, box: tuple[float, ...] = (0, 0, 5, 5)) -> Make:
        image = {"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}
        found = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": segmentation, "iscrowd": 0}
        content = {"images": [image], "annotations": [found], "categories": [{"id": 1, "name": "thing"}]}
        return lambda path: path.write_text(json.dumps(content))

    far = [-65535, -65535, 131070, -65535, 131070, 131070, -65535, 131070]
    yield "an image of 10^18 pixels", coco((10**9, 10**9), [[0, 0, 9, 0, 9, 9]])
    yield "a polygon as far as allowed", coco((65535, 65535), [far] * 20)
    yield "a polygon of infinite reach", coco((10, 10), [[0, 0, 1e300, 0, 9, 9]])
    yield "run lengths of 4 x 10^9 pixels", coco((65535, 65535), {"size": [65535, 65535], "counts": [0, 65535 * 65535]})
    yield "run lengths of 10^30 pixels", coco((9, 9), {"size": [9, 9], "counts": [10**30]})
    yield "run lengths of endless digits", coco((9, 9), {"size": [9, 9], "counts": "o" * 10**6})
    yield "10^6 brackets", lambda path: path.write_text("[" * 10**6)
    yield "a number of 10^6 digits", lambda path: path.write_text('{"images": ' + "9" * 10**6)
    yield "annotations in a named pipe", os.mkfifo
    yield "annotations from a device", lambda path: path.symlink_to("/dev/zero")
    yield "annotations in a folder", lambda path: path.mkdir()


def write_all(folder: Path) -> int:
    """Writes each file as ``NUMBER NAME``, in ``images``, ``masks`` and ``annotations``; returns how many there are."""
    count = 0
    for part, makers in (("images", images()), ("annotations", annotation_files())):
        (folder / part).mkdir()
        for count, (name, make) in enumerate(makers, start=count + 1):  # noqa: B020
            make(folder / part / f"{count:03d} {name}")
    for count, (name, layout, content, size) in enumerate(masks(), start=count + 1):  # noqa: B020
        target = folder / "masks" / f"{count:03d} {name}"
        mask = target / layout / ("a.png" if layout == "index" else "a/0.png")
        mask.parent.mkdir(parents=True)
        mask.write_bytes(content)
        (target / "pictures").mkdir()
        (target / "pictures" / "a.png").write_bytes(png(*size, 1, 0))
    return count


def main(folder: Path) -> None:
    from r3cnn.data.annotations import read_index
    from r3cnn.data.loading import ImageReader
    from r3cnn.data.mask_folders import MaskReading, convert_masks
    from r3cnn.evaluation.ground_truth import load_ground_truth

    events: list[str] = []
    sys.addaudithook(lambda name, _: events.append(name) if name.startswith(FORBIDDEN) else None)
    reader, scaled = ImageReader(), ImageReader(image_range=(0, 1))

    def converted(place: Path) -> int:
        layout = "index" if (place / "index").is_dir() else "folders"
        return len(convert_masks(place / "pictures", place / layout, MaskReading(layout))["annotations"])

    calls: dict[str, list[Callable[[Path], object]]] = {
        "images": [lambda path: reader(path).shape, lambda path: scaled(path).shape, reader.examine],
        "masks": [converted],
        "annotations": [
            lambda path: read_index(path, ["thing"], may_lack_classes=False, max_overhang=0.1)[1].found,
            lambda path: len(load_ground_truth(path).annotations),
        ],
    }
    for path in sorted(folder.glob("*/*")):
        for call in calls[path.parent.name]:
            events.clear()
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of memory
            start = time.process_time()
            try:
                outcome = f"read {call(path)}"
            except ValueError as error:
                outcome = f"refused {error}"
            except Exception as error:
                outcome = f"crashed {type(error).__name__}: {error}"
            seconds = time.process_time() - start
            peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
            print(json.dumps([path.name, outcome, seconds, int(peak.split()[1]) / 1024, events]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
