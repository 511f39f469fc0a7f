"""Files, paths and arguments that mean harm, made anew each time: nothing of it is stored."""

import functools
import io
import os
import random
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "avif": "AVIF"}


def paths(folder: Path, studio_state: Path) -> Iterator[str]:
    """Strings in place of a path, and paths of what is no picture; makes what they lead to in `folder`."""
    yield from (
        *("", " ", "\t", "\0", "a\0b.png", "a\nb.png", "\x7f", "x" * 5000, "x" * 300 + ".png", "é" * 200 + ".png"),
        *("..", ".", "/", "//", "../../../../etc/passwd", "/etc/passwd", "/etc/shadow", "/root/.ssh/id_rsa"),
        *(
            "/proc/self/environ",
            "/proc/self/mem",
            "/proc/self/fd/0",
            "/proc/self/cmdline",
            "/proc/self/root/etc/passwd",
        ),
        *("/dev/zero", "/dev/random", "/dev/fd/0", "/dev/stdin", "/dev/tty", "/dev/null", "/sys/kernel/notes"),
        *("file:///etc/passwd", "http://127.0.0.1:1/a.png", "https://example.com/a.png", "ftp://x/y", "gopher://x"),
        *("data:image/png;base64,iVBORw0KGgo=", "\\\\host\\share\\a.png", "//host/share/a.png", "\\\\?\\C:\\a.png"),
        *("C:a.png", "C:\\a.png", "a.png:stream", "CON", "NUL.png", "aux.jpg", "~", "~/", "~root/.bashrc", "~/.bashrc"),
        *("$HOME/a.png", "%2e%2e/%2e%2e/etc/passwd", "a.png\u202egnp.exe", "\U0001f34c.png", "-rf"),
        *("img_", "img_0000000000000000", "img_../../../etc", "IMG_0000000000000000", "img_" + "z" * 16),
        *("files/", "files/nope", "files/../../x", "files/" + "x" * 3000, "files/a b", "files/\0", "files/ä"),
        *("|id", "`id`.png", "$(id).png", "*.png", "?", "a.png;rm -rf /", "<script>", "{{7*7}}", "%s%n%x"),
    )
    yield from (str(path) for path in studio_state.rglob("*"))
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(folder)  # a socket's path may have only some hundred bytes
            listener.bind("socket.png")
        finally:
            os.fchdir(here)
            os.close(here)
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "nowhere.png").symlink_to("missing")
    (folder / "secret.png").symlink_to("/etc/passwd")
    (folder / "device.png").symlink_to("/dev/zero")
    for number in range(45):
        (folder / f"chain{number}.png").symlink_to(f"chain{number + 1}.png")
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(200 << 30)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.png").write_bytes(picture("png"))
    for name in ("pipe", "socket", "folder", "loop", "nowhere", "secret", "device", "chain0", "sparse"):
        yield str(folder / f"{name}.png")
    yield str(folder / ".hidden" / "a.png")
    yield str(folder / "sparse.png" / "below")


def contents() -> Iterator[tuple[str, bytes]]:
    """File names and bytes: what is no picture, bombs, and pictures that are cut or flipped."""
    texts = {
        "text": b"root:x:0:0:root:/root:/bin/bash\n" * 20,
        "key": b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n-----END OPENSSH PRIVATE KEY-----\n",
        "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "html": b"<!doctype html><script>alert(1)</script>",
        "zip": b"PK\x03\x04" + bytes(60),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
        "script": b"#!/bin/sh\ntouch /tmp/owned\n",
        "elf": b"\x7fELF" + bytes(100),
        "gzip": zlib.compress(bytes(1000), wbits=31),
        "psd": b"8BPS\x00\x01" + bytes(60),
        "dds": b"DDS " + bytes(124),
        "fits": b"SIMPLE  =                    T" + b" " * 2850,
        "ico": b"\x00\x00\x01\x00\x01\x00" + bytes(40),
        "jp2": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(60),
        "heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40),
        "empty": b"",
        "one": b"\x89",
        "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
    }
    yield from ((f"{name}.png", data) for name, data in texts.items())
    yield from ((f"bomb-{name}", data) for name, data in bombs().items())
    chance = random.Random(7)
    for extension in FORMATS:
        whole = picture(extension)
        for percent in range(0, 100, 10):
            yield f"cut-{percent}.{extension}", whole[: len(whole) * percent // 100]
        for number in range(4):
            flipped = bytearray(whole)
            for _ in range(1 + number * 3):
                flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
            yield f"flipped-{number}.{extension}", bytes(flipped)
        yield f"tail.{extension}", whole + b"-----BEGIN PRIVATE KEY-----" * 50


BOMBS = (
    "30000.png",
    "177mp.png",
    "88mp.png",
    "lying.png",
    "nothing.png",
    "line.png",
    "scans.jpg",
    "lying.jpg",
    "ztxt.png",
    "iccp.png",
    "exif.png",
    "frames.gif",
    "lying.gif",
    "lying.bmp",
    "lying.webp",
    "loop.tiff",
)


@functools.cache
def bombs() -> dict[str, bytes]:
    """Small files that ask for much time or memory, under the names of BOMBS."""
    frames = [Image.new("P", (8, 8), number % 256) for number in range(300)]
    many = io.BytesIO()
    frames[0].save(many, "GIF", save_all=True, append_images=frames[1:], duration=10, optimize=False)
    jpeg = picture("jpg", progressive=True)
    scan = jpeg.index(b"\xff\xda")
    size = jpeg.index(b"\xff\xc2") + 5
    text = b"Comment\0\0" + zlib.compress(bytes(60_000_000), 9)
    profile = b"icc\0\0" + zlib.compress(bytes(50_000_000), 9)
    plain = picture("png")
    tiff = picture("tiff")
    loop = bytearray(tiff)
    start = struct.unpack_from("<I", loop, 4)[0]
    entries = struct.unpack_from("<H", loop, start)[0]
    struct.pack_into("<I", loop, start + 2 + 12 * entries, start)
    made = {
        "30000.png": png(30_000, 30_000, depth=1, color=0),
        "177mp.png": png(13_300, 13_300, depth=1, color=0),
        "88mp.png": png(9_400, 9_400, depth=8, color=6),
        "lying.png": png(2**31 - 1, 2**31 - 1, depth=16, color=6),
        "nothing.png": png(0, 0, depth=8, color=2),
        "line.png": png(65_500, 1, depth=8, color=2),
        "scans.jpg": jpeg[:-2] + jpeg[scan:-2] * 300 + b"\xff\xd9",
        "lying.jpg": jpeg[:size] + struct.pack(">HH", 65_500, 65_500) + jpeg[size + 4 :],
        "ztxt.png": plain[:33] + chunk(b"zTXt", text) + plain[33:],
        "iccp.png": plain[:33] + chunk(b"iCCP", profile) + plain[33:],
        "exif.png": plain[:33] + chunk(b"eXIf", bytes(20_000_000)) + plain[33:],
        "frames.gif": many.getvalue(),
        "lying.gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + picture("gif")[10:],
        "lying.bmp": picture("bmp")[:18] + struct.pack("<ii", 2**30, 2**30) + picture("bmp")[26:],
        "lying.webp": b"RIFF\x1e\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x10\x00\x00\x00" + b"\xff" * 6 + bytes(8),
        "loop.tiff": bytes(loop),
    }
    assert tuple(made) == BOMBS
    return made


def picture(extension: str, **options: Any) -> bytes:
    """A small picture with something in it."""
    image = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
    out = io.BytesIO()
    image.save(out, FORMATS[extension], **options)
    return out.getvalue()


def png(width: int, height: int, *, depth: int, color: int) -> bytes:
    """A PNG with a true header and nearly nothing behind it."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def arguments(project: Path) -> Iterator[dict[str, Any]]:
    """Arguments of generate_image that are wrong or reach for what they may not."""
    numbers: tuple[Any, ...] = (0, -1, 21, 1000, 10**30, "4", "many", 1.5, float("nan"), None, True, [], {})
    for n in numbers:
        yield {"prompt": "a", "n": n}
    prompts: tuple[Any, ...] = ("", "   ", None, 5, [], {}, "x" * 10_000, "\0", "x" * 8192, "\u202e", "{{7*7}}")
    for prompt in prompts:
        yield {"prompt": prompt}
    for name, value in (
        *(("negative_prompt", "x" * 1025), ("system_instruction", "x" * 513), ("mode", "delete"), ("mode", "edit")),
        *(("model_tier", "ultra"), ("resolution", "8k"), ("resolution", ["4k"]), ("thinking_level", "x")),
        *(("aspect_ratio", "17:3"), ("aspect_ratio", "1:0"), ("enable_grounding", "perhaps"), ("dry_run", "maybe")),
        *(("idempotency_key", ""), ("idempotency_key", "x" * 201), ("input_images", "a.png"), ("input_images", [5])),
        *(("input_images", ["a.png"] * 15), ("file_id", "../x"), ("file_id", "/etc/passwd"), ("file_id", "")),
        *(("unknown", 1), ("api_key", "AIza"), ("__class__", {}), ("self", 1), ("context", {}), ("size", "1024x1024")),
        ("input_image_path_1", {"path": "/etc/passwd"}),
    ):
        yield {"prompt": "a", name: value}
    for place in (
        *(
            "/etc/passwd",
            "/etc/cron.d/x",
            "~/.bashrc",
            ".git/hooks/pre-commit",
            "/proc/self/x",
            "/dev/null",
            "/dev/null/x",
        ),
        *(
            "a\0b.png",
            "x" * 5000,
            "y" * 300 + ".png",
            "",
            " ",
            "http://x/y.png",
            "//host/x.png",
            "\\\\host\\x",
            ".hidden.png",
        ),
        *(
            "/",
            "/sys/x.png",
            str(project / "notes.txt"),
            str(project / "holiday.jpg"),
            str(project / "holiday.jpg" / "x"),
        ),
        *(str(project.parent / "state"), str(project.parent / "state" / "library.db")),
    ):
        yield {"prompt": "a", "output_path": place}
