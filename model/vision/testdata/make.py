"""Makes the golden files of this folder with Pillow and torchvision:

    python make.py            # pillow 13.0, torchvision 0.29, transformers 5.23, numpy
    python make.py --out DIR  # elsewhere: make_goldens.py --check compares that with what is committed

images.zip holds the encoded images, images.json what Pillow makes of each: size and MD5 of the RGB
bytes of exif_transpose(image).convert("RGB"), or "error". The other files are described where they
are written. Nothing depends on the time or on a random seed of the machine.
"""

import argparse
import hashlib
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image, ImageOps
from torchvision.transforms import v2
from transformers import ViTImageProcessorPil

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
HERE = parser.parse_args().out


def picture(w, h, seed=0, mode="RGB"):
    """A picture with smooth areas, edges and noise."""
    rng = np.random.RandomState(seed + 1000 * w + h)
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    channels = []
    for _ in range(len(mode)):
        a, b, c, d = rng.uniform(0.02, 0.4, 4)
        v = 127 + 90 * np.sin(a * x + b * y) + 60 * np.cos(c * y - d * x)
        v[(x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) > rng.uniform(0, 10)] += 80
        channels.append(v + rng.normal(0, 25, (h, w)) * (x > w / 2))
    a = np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8)
    return Image.merge(mode, [Image.fromarray(a[..., i]) for i in range(len(mode))])


def encode(image, kind, **options):
    b = io.BytesIO()
    image.save(b, kind, **options)
    return b.getvalue()


def jpeg_segments(data):
    """Splits a JPEG file into (marker, payload) up to the scan; the last one is (None, the rest)."""
    at, out = 2, []
    while True:
        marker, n = data[at + 1], struct.unpack(">H", data[at + 2:at + 4])[0]
        if marker == 0xDA:
            return out + [(None, data[at:])]
        out.append((marker, data[at + 4:at + 2 + n]))
        at += 2 + n


def jpeg_join(segments):
    out = b"\xff\xd8"
    for marker, payload in segments:
        out += payload if marker is None else struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
    return out


def with_sampling(data, w, h, factors):
    """Declares other sampling factors and another size; the caller keeps the number of blocks."""
    out = []
    for marker, p in jpeg_segments(data):
        if marker in (0xC0, 0xC1, 0xC2):
            p = bytearray(p)
            p[1:5] = struct.pack(">HH", h, w)
            for i, f in enumerate(factors):
                p[7 + 3 * i] = f
            p = bytes(p)
        out.append((marker, p))
    return jpeg_join(out)


def separate_scans(w, h, seed, quality):
    """A sequential file of three components with a scan for each."""
    planes = [jpeg_segments(encode(picture(w, h, seed + i, "L"), "JPEG", quality=quality)) for i in range(3)]
    out = []
    for marker, p in planes[0]:
        if marker == 0xC0:
            p = p[:5] + b"\x03" + b"".join(bytes([i, 0x11, 0]) for i in (1, 2, 3))
        if marker is None:
            p = b"".join(b"\xff\xda\0\x08\x01" + bytes([i + 1]) + b"\0\0\x3f\0" + plane[-1][1][10:-2]
                         for i, plane in enumerate(planes)) + b"\xff\xd9"
        out.append((marker, p))
    return jpeg_join(out)


def jpeg_cases():
    for w, h in [(1, 1), (2, 1), (1, 2), (2, 2), (3, 3), (3, 1), (1, 3), (4, 5), (5, 4), (7, 9), (8, 8), (9, 7), (15, 16),
                 (16, 16), (17, 17), (16, 33), (31, 15), (33, 34), (40, 24), (64, 48)]:
        for sub in ("4:4:4", "4:2:2", "4:2:0"):
            for progressive in (False, True):
                q = 30 + (w * 7 + h * 13) % 70
                name = f"jpeg/{w}x{h}-{sub.replace(':', '')}-q{q}{'-progressive' if progressive else ''}"
                yield name, encode(picture(w, h), "JPEG", quality=q, subsampling=sub, progressive=progressive)
        yield f"jpeg/{w}x{h}-grey", encode(picture(w, h, mode="L"), "JPEG", quality=80)
    for q in (1, 5, 20, 50, 75, 85, 95, 100):
        yield f"jpeg/75x60-q{q}", encode(picture(75, 60, q), "JPEG", quality=q, optimize=q % 2 == 0)
        yield f"jpeg/75x60-q{q}-progressive", encode(picture(75, 60, q), "JPEG", quality=q, progressive=True)
    for n in (1, 2, 3, 7):
        for sub in ("4:4:4", "4:2:0"):
            for progressive in (False, True):
                yield (f"jpeg/53x61-{sub.replace(':', '')}-restart{n}{'-progressive' if progressive else ''}",
                       encode(picture(53, 61, n), "JPEG", quality=85, subsampling=sub, progressive=progressive, restart_marker_blocks=n))
    yield "jpeg/grey-restart", encode(picture(53, 61, mode="L"), "JPEG", restart_marker_blocks=4)
    yield "jpeg/grey-progressive", encode(picture(53, 61, mode="L"), "JPEG", progressive=True)

    # Sampling that Pillow does not write: the blocks of 4:2:2 or 4:2:0 files, rearranged.
    for progressive in (False, True):
        end = "-progressive" if progressive else ""
        for w, h in [(5, 32), (8, 33), (16, 16), (17, 48), (30, 64)]:
            mcus = -(-w // 8) * -(-h // 16)
            data = encode(picture(16 * mcus, 8, w), "JPEG", quality=90, subsampling="4:2:2", progressive=progressive)
            yield f"jpeg/{w}x{h}-440{end}", with_sampling(data, w, h, (0x12, 0x11, 0x11))
        for w, h in [(1, 5), (3, 8), (33, 8), (63, 17), (64, 24), (65, 30)]:
            mcus = -(-w // 32) * -(-h // 8)
            data = encode(picture(16 * mcus, 16, w), "JPEG", quality=90, subsampling="4:2:0", progressive=progressive)
            yield f"jpeg/{w}x{h}-411{end}", with_sampling(data, w, h, (0x41, 0x11, 0x11))
        for w, h in [(3, 31), (16, 40), (19, 70)]:
            mcus = -(-w // 8) * -(-h // 32)
            data = encode(picture(16 * mcus, 16, w), "JPEG", quality=90, subsampling="4:2:0", progressive=progressive)
            yield f"jpeg/{w}x{h}-1x4{end}", with_sampling(data, w, h, (0x14, 0x11, 0x11))
        for factors in [(0x11, 0x21, 0x11), (0x11, 0x11, 0x21), (0x11, 0x12, 0x11), (0x21, 0x11, 0x11), (0x12, 0x11, 0x11)]:
            v = max(f & 15 for f in factors)
            mcus = -(-37 // (8 * max(f >> 4 for f in factors))) * -(-29 // (8 * v))
            data = encode(picture(16 * mcus, 8, v), "JPEG", quality=90, subsampling="4:2:2", progressive=progressive)
            yield f"jpeg/factors-{'-'.join('%x' % f for f in factors)}{end}", with_sampling(data, 37, 29, factors)
        yield f"jpeg/factors-22-21-21{end}", with_sampling(
            encode(picture(16, 16, 1), "JPEG", quality=90, subsampling="4:2:0", progressive=progressive), 16, 16, (0x22, 0x11, 0x11))
        yield f"jpeg/factors-fraction{end}", with_sampling(
            encode(picture(48, 16, 1), "JPEG", quality=90, subsampling="4:2:0", progressive=progressive), 24, 8, (0x31, 0x21, 0x11))
    for w, h in [(1, 1), (20, 30), (33, 16)]:
        yield f"jpeg/{w}x{h}-scans", separate_scans(w, h, w, 88)

    # Colour spaces.
    for w, h in [(1, 1), (13, 21), (34, 18)]:
        for progressive in (False, True):
            end = "-progressive" if progressive else ""
            cmyk = encode(picture(w, h, mode="CMYK"), "JPEG", quality=85, progressive=progressive)
            yield f"jpeg/{w}x{h}-cmyk{end}", cmyk
            seg = jpeg_segments(cmyk)
            for transform in (1, 2):
                ycck = [(m, p[:11] + bytes([transform]) + p[12:] if m == 0xEE else p) for m, p in seg]
                yield f"jpeg/{w}x{h}-ycck{transform}{end}", jpeg_join(ycck)
            yield f"jpeg/{w}x{h}-cmyk-bare{end}", jpeg_join([(m, p) for m, p in seg if m != 0xEE])
            yield f"jpeg/{w}x{h}-rgb{end}", encode(picture(w, h), "JPEG", quality=85, keep_rgb=True, progressive=progressive)
    rgb = jpeg_segments(encode(picture(20, 20), "JPEG", quality=85, subsampling=0))
    bare = [(m, p) for m, p in rgb if m != 0xE0]
    adobe = b"Adobe\0\x64\0\0\0\0"
    for ids in (b"\1\2\3", b"RGB", b"rgb", b"\0\1\2"):
        renamed = []
        for m, p in bare:
            if m == 0xC0:
                p = bytearray(p)
                p[6], p[9], p[12] = ids
            elif m is None:
                p = bytearray(p)
                p[5], p[7], p[9] = ids
            renamed.append((m, bytes(p)))
        yield f"jpeg/ids-{ids.hex()}", jpeg_join(renamed)
    for transform in (0, 1, 2):
        yield f"jpeg/adobe{transform}", jpeg_join([(0xEE, adobe + bytes([transform]))] + bare)
        yield f"jpeg/jfif-adobe{transform}", jpeg_join(rgb[:1] + [(0xEE, adobe + bytes([transform]))] + rgb[1:])

    # Unusual structure.
    plain = encode(picture(37, 41, 5), "JPEG", quality=85)
    seg = jpeg_segments(plain)
    yield "jpeg/no-huffman-tables", jpeg_join([(m, p) for m, p in seg if m != 0xC4])
    yield "jpeg/comment", jpeg_join([(0xFE, b"hello \xff\xd9")] + seg)
    yield "jpeg/fill-bytes", plain[:2] + b"\xff\xff\xff" + plain[2:]
    yield "jpeg/trailing-garbage", plain + b"garbage" * 30
    yield "jpeg/thumbnail", jpeg_join([(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + encode(picture(16, 16), "JPEG"))] + seg)
    sixteen = [(m, b"".join(bytes([0x10 | p[i]]) + b"".join(struct.pack(">H", v) for v in p[i + 1:i + 65]) for i in range(0, len(p), 65))
                if m == 0xDB else p) for m, p in seg]
    yield "jpeg/quant-16-bit", jpeg_join(sixteen)
    yield "jpeg/extended", plain.replace(b"\xff\xc0", b"\xff\xc1", 1)

    # Damage. libjpeg goes on after damaged data, but not after the end of the file.
    for cut in (2, 3, 10, 100, 400):
        yield f"jpeg/cut{cut}", plain[:-cut]
    progressive = encode(picture(37, 41, 5), "JPEG", quality=85, progressive=True)
    for cut in (2, 10, 200):
        yield f"jpeg/cut{cut}-progressive", progressive[:-cut]
    yield "jpeg/cut-header", plain[:200]
    yield "jpeg/cut-marker", plain[:-1]
    early = plain[:len(plain) * 2 // 3]
    yield "jpeg/early-end", early.rstrip(b"\xff") + b"\xff\xd9"
    restarts = encode(picture(80, 40, 5), "JPEG", quality=85, restart_marker_blocks=2)
    marks = [i for i in range(len(restarts) - 1) if restarts[i] == 0xFF and 0xD0 <= restarts[i + 1] <= 0xD7]
    yield "jpeg/restart-lost", restarts[:marks[2]] + restarts[marks[3]:]
    yield "jpeg/restart-three-lost", restarts[:marks[2]] + restarts[marks[5]:]
    yield "jpeg/restart-renamed", restarts[:marks[2] + 1] + b"\xd1" + restarts[marks[2] + 2:]
    yield "jpeg/restart-far", restarts[:marks[2] + 1] + b"\xd6" + restarts[marks[2] + 2:]
    yield "jpeg/restart-short", restarts[:marks[3] - 7] + restarts[marks[3]:]
    yield "jpeg/restart-long", restarts[:marks[3]] + b"abcdefgh" + restarts[marks[3]:]
    rng = np.random.RandomState(4)
    for i in range(24):
        # 18 overflows the 16-bit arithmetic of libjpeg-turbo's vector code, which is not reproduced.
        data = bytearray((plain, progressive, restarts)[i % 3])
        start = bytes(data).rindex(b"\xff\xda") + 14 if i % 3 != 1 else bytes(data).index(b"\xff\xda") + 14
        at = rng.randint(start, len(data) - 2)
        data[at] = rng.randint(0, 255)
        if i != 18:
            yield f"jpeg/damaged{i}", bytes(data)


def exif(orientation, order="MM", kind=3, before=()):
    """An EXIF block with an Orientation tag of the given type (3 SHORT, 4 LONG, 1 BYTE), behind other tags."""
    o = ">" if order == "MM" else "<"
    tags = [(tag, 3, 1, struct.pack(o + "HH", 7, 0)) for tag in before]
    value = {1: struct.pack(o + "Bxxx", orientation), 3: struct.pack(o + "HH", orientation, 0), 4: struct.pack(o + "I", orientation)}
    tags.append((0x0112, kind, 1, value[kind]))
    out = order.encode() + struct.pack(o + "HIH", 42, 8, len(tags))
    for tag, kind, n, value in tags:
        out += struct.pack(o + "HHI", tag, kind, n) + value
    return b"Exif\0\0" + out + b"\0\0\0\0"


def xmp(orientation, element=False):
    tag = f"<tiff:Orientation>{orientation}</tiff:Orientation>" if element else ""
    attribute = "" if element else f' tiff:Orientation="{orientation}"'
    return (f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description{attribute}>{tag}</rdf:Description></rdf:RDF></x:xmpmeta>').encode()


def orientation_cases():
    image = picture(23, 14, 9)
    for i in range(10):
        for order in ("MM", "II"):
            yield f"orientation/jpeg{i}-{order}", encode(image, "JPEG", quality=90, exif=exif(i, order))
    for i in range(1, 9):
        yield f"orientation/jpeg{i}-xmp", encode(image, "JPEG", xmp=xmp(i))
        yield f"orientation/png{i}", encode(image, "PNG", exif=exif(i))
        yield f"orientation/webp{i}", encode(image, "WEBP", lossless=True, exif=exif(i))
        yield f"orientation/tiff{i}", encode(image, "TIFF", tiffinfo={0x0112: i})
    for kind in (1, 4):
        yield f"orientation/jpeg-type{kind}", encode(image, "JPEG", exif=exif(6, "II", kind))
        yield f"orientation/jpeg-type{kind}-big", encode(image, "JPEG", exif=exif(6, "MM", kind))
    yield "orientation/jpeg-later-tag", encode(image, "JPEG", exif=exif(8, "II", 3, (0x0100, 0x0101, 0x010F)))
    yield "orientation/jpeg-exif-and-xmp", encode(image, "JPEG", exif=exif(8), xmp=xmp(3))
    yield "orientation/jpeg-xmp-element", encode(image, "JPEG", xmp=xmp(6, True))
    yield "orientation/webp-xmp", encode(image, "WEBP", lossless=True, xmp=xmp(6))
    yield "orientation/webp-lossy", encode(image, "WEBP", quality=80, exif=exif(5))
    seg = jpeg_segments(encode(image, "JPEG"))
    block = exif(6)
    yield "orientation/jpeg-twice", jpeg_join([(0xE1, block), (0xE1, exif(3))] + seg)
    yield "orientation/jpeg-short", jpeg_join([(0xE1, block[:-9])] + seg)
    yield "orientation/jpeg-count0", jpeg_join([(0xE1, block[:18] + b"\0\0\0\0" + block[22:])] + seg)
    yield "orientation/jpeg-no-tags", jpeg_join([(0xE1, b"Exif\0\0MM\0*\0\0\0\x08")] + seg)
    yield "orientation/jpeg-far-tags", jpeg_join([(0xE1, b"Exif\0\0MM\0*\0\1\0\0")] + seg)
    yield "orientation/jpeg-wrong-magic", jpeg_join([(0xE1, b"Exif\0\0XX" + block[8:])] + seg)
    png = encode(image, "PNG")
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    yield "orientation/png-last", png[:-12] + chunk(b"eXIf", block[6:]) + png[-12:]
    yield "orientation/png-prefix", png[:-12] + chunk(b"eXIf", block) + png[-12:]
    yield "orientation/png-xmp", png[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6)) + png[33:]
    yield "orientation/png-xmp-compressed", png[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(6))) + png[33:]
    raw = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    yield "orientation/png-raw-profile", png[:33] + chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)) + png[33:]
    yield "orientation/png-raw-profile-text", png[:33] + chunk(b"tEXt", b"Raw profile type exif\0" + raw) + png[33:]


def png_bytes(w, h, depth, colour, rows, palette=None, transparency=None, interlace=0):
    """A PNG of any kind, from filter-less packed rows."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlace))
    if palette is not None:
        out += chunk(b"PLTE", palette)
    if transparency is not None:
        out += chunk(b"tRNS", transparency)
    return out + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + r for r in rows), 9)) + chunk(b"IEND", b"")


def png_cases():
    rng = np.random.RandomState(11)
    for w, h in [(1, 1), (3, 2), (13, 9), (32, 20)]:
        for mode in ("1", "L", "P", "RGB", "LA", "RGBA"):
            image = picture(w, h, 3)
            if mode in ("LA", "RGBA"):
                image = image.convert(mode)
                image.putalpha(picture(w, h, 4, "L"))
            yield f"png/{w}x{h}-{mode}", encode(image.convert(mode), "PNG")
        for depth, colour, channels in [(1, 0, 1), (2, 0, 1), (4, 0, 1), (8, 0, 1), (16, 0, 1), (16, 2, 3), (16, 4, 2), (16, 6, 4),
                                        (8, 2, 3), (1, 3, 1), (2, 3, 1), (4, 3, 1), (8, 3, 1)]:
            size = -(-w * depth * channels // 8)
            rows = [rng.bytes(size) for _ in range(h)]
            palette = rng.bytes(3 << min(depth, 8)) if colour == 3 else None
            yield f"png/{w}x{h}-depth{depth}-colour{colour}", png_bytes(w, h, depth, colour, rows, palette)
            if colour in (0, 2, 3):
                t = rng.bytes(1 << min(depth, 8)) if colour == 3 else (rows[0][:2 * channels] if depth == 16 else
                    b"".join(b"\0" + bytes([v]) for v in rows[0][:channels]) if depth == 8 else b"\0\1" * channels)
                yield f"png/{w}x{h}-depth{depth}-colour{colour}-transparent", png_bytes(w, h, depth, colour, rows, palette, t)
    for values in ([0, 128, 255, 256, 257, 1000, 32768, 65535], [0, 10, 200, 255, 1, 2, 3, 4]):
        rows = [struct.pack(">8H", *values)]
        yield f"png/grey16-{values[4]}", png_bytes(8, 1, 16, 0, rows)
    yield "png/short-palette", png_bytes(4, 1, 8, 3, [b"\0\1\2\3"], b"abcdefghi")
    png = encode(picture(20, 20, 5), "PNG")
    for cut in (1, 4, 12, 13, 20, 200, 700):
        yield f"png/cut{cut}", png[:-cut]
    yield "png/bad-crc", png[:60] + bytes([png[60] ^ 1]) + png[61:]
    yield "png/animated", encode(picture(12, 10), "PNG", save_all=True, append_images=[picture(12, 10, 1), picture(12, 10, 2)])
    yield from png_bombs()
    big = png_bytes(20000, 20000, 1, 0, [b"\0"])
    yield "png/bomb", big


def png_bombs():
    """Text and profiles at Pillow's limits and beyond, and damaged ones."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    png = encode(picture(4, 4), "PNG")
    allowed, forbidden = (zlib.compress(bytes((1 << 20) + more), 9) for more in (0, 1))
    before = {b"iCCP": b"x\0\0", b"zTXt": b"x\0\0", b"iTXt": b"x\0\1\0\0\0"}
    for kind, head in before.items():
        for name, body in [("allowed", allowed), ("bomb", forbidden), ("damaged", forbidden[:50])]:
            yield f"png/{kind.decode()}-{name}", png[:33] + chunk(kind, head + body) + png[33:]
        yield f"png/{kind.decode()}-method", png[:33] + chunk(kind, head.replace(b"\1\0", b"\1\1") if kind == b"iTXt" else b"x\0\1" + allowed) + png[33:]
    yield "png/zTXt-bomb-last", png[:-12] + chunk(b"zTXt", b"x\0\0" + forbidden) + png[-12:]
    for n in (64, 65):
        yield f"png/zTXt-{n}", png[:33] + chunk(b"zTXt", b"x\0\0" + allowed) * n + png[33:]
    yield "png/zTXt-nothing", png[:33] + chunk(b"zTXt", b"") + chunk(b"zTXt", b"x") + chunk(b"zTXt", b"x\0") + chunk(b"iTXt", b"x\0") + png[33:]


def other_cases():
    for w, h in [(1, 1), (3, 5), (16, 9), (33, 31)]:
        for mode in ("1", "L", "P", "RGB", "RGBA"):
            image = picture(w, h, 6).convert(mode)
            if mode == "RGBA":
                image.putalpha(picture(w, h, 7, "L"))
            yield f"bmp/{w}x{h}-{mode}", encode(image, "BMP")
        for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"):
            image = picture(w, h, 8).convert("L" if mode == "I;16" else mode)
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
            if mode in ("RGBA", "LA"):
                image.putalpha(picture(w, h, 7, "L"))
            for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
                if compression is None or w == 16:
                    yield f"tiff/{w}x{h}-{mode.replace(';', '')}-{compression or 'raw'}", encode(image, "TIFF", compression=compression)
        for mode in ("L", "P", "RGB"):
            yield f"gif/{w}x{h}-{mode}", encode(picture(w, h, 6).convert(mode), "GIF")
        yield f"gif/{w}x{h}-interlaced", encode(picture(w, h, 6), "GIF", interlace=True)
        yield f"gif/{w}x{h}-transparent", encode(picture(w, h, 6).convert("P"), "GIF", transparency=3)
        yield f"gif/{w}x{h}-animated", encode(picture(w, h, 6), "GIF", save_all=True, append_images=[picture(w, h, 7), picture(w, h, 8)], duration=50)
    small = encode(picture(6, 5, 2).convert("P"), "GIF")
    at = small.index(b"\x2c\0\0\0\0")
    for x, y, transparency in [(2, 3, None), (2, 3, 5), (0, 0, 5)]:
        control = b"" if transparency is None else b"\x21\xf9\4\1\0\0" + bytes([transparency]) + b"\0"
        yield (f"gif/offset{x}-{y}-{transparency}", small[:6] + struct.pack("<HH", 11, 9) + small[10:at].replace(b"\x21\xf9", b"\x21\xf9") +
               control + b"\x2c" + struct.pack("<HH", x, y) + small[at + 5:])
    yield "gif/screen-too-small", small[:6] + struct.pack("<HH", 3, 3) + small[10:]
    for cut in (1, 2, 5, 20):
        yield f"gif/cut{cut}", small[:-cut]
        yield f"bmp/cut{cut}", encode(picture(6, 5), "BMP")[:-cut]
        yield f"tiff/cut{cut}", encode(picture(6, 5), "TIFF")[:-cut]
        yield f"webp/cut{cut}", encode(picture(6, 5), "WEBP")[:-cut]
        yield f"webp/cut{cut}-lossless", encode(picture(6, 5), "WEBP", lossless=True)[:-cut]


def webp_cases():
    for w, h in [(1, 1), (2, 2), (3, 3), (1, 8), (8, 1), (4, 5), (15, 16), (16, 15), (17, 17), (33, 31), (64, 40)]:
        for q in (5, 50, 90):
            yield f"webp/{w}x{h}-q{q}", encode(picture(w, h, q), "WEBP", quality=q)
        alpha = picture(w, h, 1).convert("RGBA")
        alpha.putalpha(picture(w, h, 2, "L"))
        yield f"webp/{w}x{h}-alpha", encode(alpha, "WEBP", quality=80)
        yield f"webp/{w}x{h}-lossless", encode(picture(w, h, 3), "WEBP", lossless=True)
        yield f"webp/{w}x{h}-lossless-alpha", encode(alpha, "WEBP", lossless=True, exact=True)
    for lossless in (False, True):
        end = "-lossless" if lossless else ""
        frames = [picture(24, 18, i) for i in range(3)]
        yield f"webp/animated{end}", encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=lossless)
        frames = [f.convert("RGBA") for f in frames]
        for i, f in enumerate(frames):
            f.putalpha(picture(24, 18, 5 + i, "L").point(lambda v: 255 * (v > 100)))
        yield f"webp/animated-alpha{end}", encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=lossless)
        # The first frame covers only a part of the canvas.
        corner = Image.new("RGBA", (24, 18))
        corner.paste(picture(7, 6, 1), (10, 8))
        yield f"webp/animated-corner{end}", encode(corner, "WEBP", save_all=True, append_images=frames, lossless=lossless)
    yield "webp/icc", encode(picture(9, 9), "WEBP", quality=60, icc_profile=b"not a profile")


def read(data):
    with Image.open(io.BytesIO(data)) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def golden(data):
    try:
        image = read(data)
    except Exception:
        return "error"
    return f"{image.width}x{image.height} {hashlib.md5(image.tobytes()).hexdigest()}"


def write_images():
    table = {}
    with zipfile.ZipFile(HERE / "images.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in [case for f in (jpeg_cases, orientation_cases, png_cases, other_cases, webp_cases) for case in f()]:
            assert name not in table, name
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
            table[name] = golden(data)
    (HERE / "images.json").write_text(json.dumps(table, indent=0, sort_keys=True) + "\n")
    print(len(table), "images,", sum(v == "error" for v in table.values()), "errors")


def pattern(w, h):
    """A picture of noise and ramps from integer arithmetic, which the Go test repeats."""
    y, x, c = np.mgrid[0:h, 0:w, 0:3].astype(np.uint64)
    n = (x * 374761393 + y * 668265263 + c * 2246822519 + 1) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    noise, ramp = (n ^ (n >> 16)) & 255, (3 * x + 5 * y + 50 * c) & 255
    return Image.fromarray(np.where((x // 4 + y // 4) % 2 == 1, noise, ramp).astype(np.uint8))


FILTERS = [Image.Resampling(i) for i in range(6)]


def write_resize():
    """resize.json: [width, height, new width, new height, MD5 of the pixels by filter number]."""
    rng = np.random.RandomState(7)
    pairs = [(1, 1, 1, 5), (1, 1, 7, 3), (1, 9, 4, 2), (9, 1, 2, 4), (2, 2, 1, 1), (2, 3, 3, 2), (5, 5, 5, 9), (5, 5, 9, 5),
             (512, 384, 224, 224), (384, 512, 224, 224), (384, 600, 224, 350), (600, 384, 350, 224), (28, 28, 224, 224),
             (32, 32, 224, 224), (300, 5, 10, 5), (5, 300, 5, 10), (640, 480, 32, 32), (97, 101, 100, 100), (256, 256, 255, 257),
             (400, 3, 3, 400), (3, 400, 400, 3), (700, 700, 3, 3), (224, 224, 225, 224), (224, 224, 224, 223)]
    # Around the sizes where Pillow changes the order of the passes: h - new h against twice w - new w.
    for ow in (30, 36, 39, 40, 41, 44):
        for delta in (-1, 0, 1, 2):
            oh = 60 - 2 * (40 - ow) - delta
            pairs += [(40, 60, ow, oh)] if 0 < oh else []
    for _ in range(70):
        top = rng.choice([8, 60, 260])
        pairs.append(tuple(int(v) for v in rng.randint(1, top, 4)))
    rows = []
    for w, h, ow, oh in pairs:
        image = pattern(w, h)
        rows.append([w, h, ow, oh] + [hashlib.md5(image.resize((ow, oh), f).tobytes()).hexdigest() for f in FILTERS])
    (HERE / "resize.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
    print(len(rows), "resizes")


def crop_boxes():
    """[seed, width, height, scale, ratio, [x, y, width, height] ten times over] of RandomResizedCrop."""
    rng = np.random.RandomState(3)
    limits = [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.6, 1), (1, 1)), ((0.3, 0.9), (0.5, 2)), ((1, 1), (3 / 4, 4 / 3)), ((0.2, 1.0), (2, 4))]
    for i in range(150):
        w, h = (int(v) for v in rng.randint(4, rng.choice([14, 700]), 2))
        scale, ratio = limits[i % len(limits)]
        torch.manual_seed(i)
        boxes = []
        for _ in range(10):
            y, x, bh, bw = T.RandomResizedCrop.get_params(Image.new("RGB", (w, h)), list(scale), list(ratio))
            boxes.append([x, y, bw, bh])
        yield [i, w, h, scale, ratio, boxes]


PIPELINES = [
    [{"RandomResizedCrop": 24}],
    [{"RandomResizedCrop": [18, 30]}, "RandomHorizontalFlip"],
    [{"RandomResizedCrop": {"size": 32, "scale": [0.6, 1.0], "ratio": [0.9, 1.1], "interpolation": "bicubic"}}, "RandomHorizontalFlip"],
    [{"RandomHorizontalFlip": 0.3}, {"RandomVerticalFlip": {"p": 0.7}}, {"RandomResizedCrop": 16}],
    [{"Resize": 20}],
    [{"Resize": [20, 31]}],
    [{"Resize": {"size": 20, "max_size": 25}}],
    [{"Resize": {"size": 33, "interpolation": "nearest"}}],
    [{"Resize": {"size": 19, "interpolation": "lanczos"}}],
    [{"Resize": {"size": 21, "interpolation": "box"}}],
    [{"Resize": {"size": 22, "interpolation": "hamming"}}],
    [{"Resize": {"size": 23, "interpolation": 3}}],
    [{"CenterCrop": 20}],
    [{"CenterCrop": [40, 17]}],
    [{"CenterCrop": [100, 101]}],
    [{"Resize": 28}, {"CenterCrop": 24}],
    [{"Resize": 28}, {"CenterCrop": 31}, "RandomVerticalFlip"],
    [{"Resize": [28, 40]}, {"CenterCrop": [27, 20]}],
    [{"RandomResizedCrop": 30}, {"CenterCrop": 21}],
    [{"Pad": 3}, {"Resize": [25, 25]}],
    [{"Pad": {"padding": [2, 5], "fill": 77}}],
    [{"Pad": {"padding": [1, 2, 3, 4], "fill": [10, 20, 30]}}],
    [{"RandomCrop": {"size": 24, "pad_if_needed": True}}],
    [{"RandomCrop": {"size": [20, 30], "padding": 4, "pad_if_needed": True}}, "RandomHorizontalFlip"],
    [{"RandomCrop": {"size": 16, "padding": [1, 2], "fill": 9, "pad_if_needed": True}}],
    [{"ColorJitter": 0.4}],
    [{"ColorJitter": {"contrast": 0.9}}],
    [{"ColorJitter": {"saturation": [0.1, 3.5]}}],
    [{"ColorJitter": {"hue": 0.5}}],
    [{"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}}],
    [{"RandomResizedCrop": 32}, {"ColorJitter": {"brightness": [0.5, 2.0], "contrast": 1.5, "saturation": 0, "hue": [-0.2, 0.3]}}],
    [{"Grayscale": 3}],
    [{"RandomGrayscale": 0.6}],
    [{"RandomRotation": 15}],
    [{"RandomRotation": {"degrees": [-180, 180], "interpolation": "bilinear"}}, "RandomHorizontalFlip"],
    [{"RandomRotation": {"degrees": [20, 70], "interpolation": "bicubic", "fill": [9, 99, 199]}}],
    [{"RandomRotation": {"degrees": 40, "expand": True, "fill": 128}}],
    [{"RandomRotation": {"degrees": 90, "expand": True, "interpolation": "bilinear"}}],
    [{"RandomRotation": {"degrees": 30, "center": [3, 5]}}],
    [{"RandomRotation": {"degrees": [0, 0], "center": [3, 5]}}],
    [{"RandomRotation": {"degrees": [90, 90]}}],
    [{"RandomRotation": {"degrees": [180, 180]}}],
    [{"RandomRotation": {"degrees": [270, 270], "expand": True}}],
    [{"RandomRotation": {"degrees": [-90, -90], "center": [7, 9], "fill": 5}}],
]
# Fourteen operations with 31 magnitudes each: many seeds.
AUGMENTS = [
    ["TrivialAugmentWide"],
    [{"TrivialAugmentWide": {"interpolation": "bilinear", "fill": [9, 99, 199]}}],
    [{"TrivialAugmentWide": {"num_magnitude_bins": 7, "interpolation": "bicubic"}}, {"Resize": 20}],
    ["RandAugment"],
    [{"RandAugment": {"num_ops": 3, "magnitude": 14, "interpolation": "bilinear"}}],
    [{"RandAugment": {"magnitude": 4, "num_magnitude_bins": 5, "fill": 128}}],
]
SIZES = [(37, 29), (29, 37), (24, 24), (80, 25), (21, 70), (1, 1), (33, 1), (40, 60)]


def build(spec):
    steps = []
    for item in spec:
        name, args = (item, {}) if isinstance(item, str) else next(iter(item.items()))
        freeze = lambda v: tuple(v) if isinstance(v, list) else v
        if isinstance(args, dict):
            args = {k: freeze(v) for k, v in args.items()}
            if isinstance(args.get("interpolation"), str):
                args["interpolation"] = T.InterpolationMode(args["interpolation"])
            steps.append(getattr(T, name)(**args))
        else:
            steps.append(getattr(T, name)(freeze(args)))
    return T.Compose(steps)


def mixes():
    """[name, width, height, images, lambda, [share of the own label, MD5 of the batch]]; the batch is mixed in floats and rounded."""
    rng = np.random.RandomState(5)
    for seed in range(80):
        name = ("MixUp", "CutMix")[seed % 2]
        w, h = (int(v) for v in rng.randint(1, 40, 2))
        n = int(rng.randint(1, 5))
        own = float(np.float32([0.0, 1.0, 0.5, 0.3][seed // 2] if seed < 8 else rng.uniform()))
        batch = torch.stack([torch.from_numpy(np.array(pattern(w + i, h))[:, i:]) for i in range(n)]).permute(0, 3, 1, 2).float()
        mix = getattr(v2, name)(num_classes=n)
        mix._dist.sample = lambda shape, own=own: torch.tensor([own])
        torch.manual_seed(seed)
        mixed, labels = mix(batch, torch.arange(n))
        params = labels[0, 0].item() if n > 1 else 1.0
        assert n == 1 or torch.allclose(labels.sum(1), torch.ones(n))
        torch.manual_seed(seed)
        made = mix.make_params([batch])
        share = made.get("lam", made.get("lam_adjusted"))
        assert n == 1 or abs(params - share) < 1e-6
        pixels = (mixed + 0.5).floor().byte().permute(0, 2, 3, 1).contiguous().numpy()
        yield [name, w, h, n, own, [share, hashlib.md5(pixels.tobytes()).hexdigest()]]


def processors():
    """MD5 of the pixel_values, float32 and channels first, of image processors with the PIL backend."""
    for settings in [
        {},
        {"size": {"height": 18, "width": 25}, "resample": 3, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        {"size": {"shortest_edge": 26}, "do_center_crop": True, "crop_size": {"height": 21, "width": 24}},
        {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": {"height": 31, "width": 26}},
    ]:
        processor = ViTImageProcessorPil(**settings)
        for w, h in [(37, 29), (30, 61), (26, 26), (224, 224)]:
            values = processor(pattern(w, h), return_tensors="np")["pixel_values"][0]
            yield [settings, w, h, f"{values.shape[2]}x{values.shape[1]} {hashlib.md5(values.astype('<f4').tobytes()).hexdigest()}"]


def write_transforms():
    """transforms.json: crop boxes, and what pipelines make of pattern() after torch.manual_seed(seed)."""
    cases = []
    for spec in PIPELINES + AUGMENTS:
        compose = build(spec)
        runs = []
        for seed, (w, h) in enumerate(SIZES * (20 if spec in AUGMENTS else 1)):
            torch.manual_seed(seed)
            try:
                image = compose(pattern(w, h))
                result = f"{image.width}x{image.height} {hashlib.md5(image.tobytes()).hexdigest()}"
            except ValueError:
                result = "error"
            runs.append([seed, w, h, result])
        cases.append({"spec": spec, "repr": [repr(t) for t in compose.transforms], "runs": runs})
    values = []
    for mean, std in [((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]:
        ramp = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2))
        tensor = T.Normalize(mean, std)(T.ToTensor()(ramp))
        values.append({"mean": mean, "std": std, "md5": hashlib.md5(tensor.numpy().astype("<f4").tobytes()).hexdigest()})
    spaces = [T.TrivialAugmentWide()._augmentation_space(n) for n in (31, 8)]
    spaces += [T.RandAugment()._augmentation_space(n, (224, 331)) for n in (31, 8)]
    magnitudes = [[m.tolist() for m, _ in space.values() if m.ndim] for space in spaces]
    out = {"boxes": list(crop_boxes()), "pipelines": cases, "magnitudes": magnitudes, "mixes": list(mixes()), "values": values, "processors": list(processors())}
    lines = ",\n".join(f'"{k}": [\n' + ",\n".join(json.dumps(row) for row in v) + "\n]" for k, v in out.items())
    (HERE / "transforms.json").write_text("{\n" + lines + "\n}\n")
    print(len(cases), "pipelines")


if __name__ == "__main__":
    write_images()
    write_resize()
    write_transforms()
