"""Writes the picture files of this folder that Pillow can write and the crate `image` cannot: python3 make.py

bomb.jpg, of 27,756 x 28,277 pixels in 422 bytes, was found by mutation."""

import struct
import zlib
from pathlib import Path

from PIL import Image

here = Path(__file__).parent
picture = Image.new("RGB", (24, 17))
picture.putdata([(10 * x, 14 * y, (x * y) % 256) for y in range(17) for x in range(24)])
picture.save(here / "progressive.jpg", progressive=True, quality=90)
picture.save(here / "restarts.jpg", quality=90, subsampling=0, restart_marker_blocks=1)
picture.convert("CMYK").save(here / "cmyk.jpg", quality=90)
picture.save(here / "lossy.webp", quality=80)
picture.save(here / "animated.webp", save_all=True, append_images=[picture.rotate(180)], quality=80)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, *chunks):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


rows = chunk(b"IDAT", zlib.compress(bytes(4 * (1 + 4))))
# Four bytes are no list of colours.
(here / "palette.png").write_bytes(png(4, 4, 8, 3, chunk(b"PLTE", bytes(4)), chunk(b"tRNS", b"\0"), rows))
