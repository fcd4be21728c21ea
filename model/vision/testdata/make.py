"""Makes the golden files of this folder with Pillow and torchvision:

    python make.py            # needs pillow 13, torchvision, numpy

images.zip holds the encoded images, images.json what Pillow makes of each: size and MD5 of the RGB
bytes of exif_transpose(image).convert("RGB"), or "error". The other files are described where they
are written. Nothing depends on the time or on a random seed of the machine.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

HERE = Path(__file__).parent


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
    return Image.fromarray(a[..., 0] if len(mode) == 1 else a, mode) if mode in ("L", "RGB", "RGBA", "CMYK") else \
        Image.merge(mode, [Image.fromarray(a[..., i]) for i in range(len(mode))])


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
    ycck = encode(picture(16 * 6, 16, mode="CMYK"), "JPEG", quality=85)
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
        for name, data in list(jpeg_cases()):
            assert name not in table, name
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
            table[name] = golden(data)
    (HERE / "images.json").write_text(json.dumps(table, indent=0, sort_keys=True) + "\n")
    print(len(table), "images,", sum(v == "error" for v in table.values()), "errors")


if __name__ == "__main__":
    write_images()
