"""Bad and odd picture and video files, made by code: rows P01-P06 and Vd01-Vd03.

Each row writes one file into a folder and says what a reader must do with it. Nothing here comes
from a data set; pictures are noise from a seeded generator.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import imagecodecs
import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Row:
    """One file of the corpus. outcome: used, used-with-warning or refused; reason: its code.

    reason None with refused: any reason will do (the damage is random). kind: who reads it.
    """

    id: str
    variant: str
    outcome: str
    reason: str | None
    build: Callable[[Path], Path]
    kind: str = "still"

    @property
    def name(self) -> str:
        return f"{self.id}-{self.variant}"


def noise(rows: int = 40, cols: int = 50, channels: int = 0, high: int = 256) -> np.ndarray:
    shape = (rows, cols, channels) if channels else (rows, cols)
    kind = np.uint8 if high <= 256 else np.uint16
    return np.random.default_rng(rows * cols + channels).integers(0, high, shape, dtype=kind)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    rows: int, cols: int, lines: bytes, *, bits: int = 8, colour: int = 0, interlace: int = 0,
    before: bytes = b"",
) -> bytes:  # fmt: skip
    head = struct.pack(">IIBBBBB", cols, rows, bits, colour, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before
        + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )  # fmt: skip


def grey_lines(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + line.tobytes() for line in pixels)


def zeros(count: int) -> bytes:
    """A zlib stream of many zero bytes, made without holding them."""
    packer = zlib.compressobj(9)
    piece = bytes(1 << 20)
    return b"".join([*(packer.compress(piece) for _ in range(count >> 20)), packer.flush()])


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def file(name: str, make: Callable[[], bytes]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(make())
        return path

    return build


def _grey() -> Image.Image:
    return Image.fromarray(noise())


def _plain() -> bytes:
    return saved(_grey(), "PNG")


def _rgba(alpha: int) -> bytes:
    pixels = noise(channels=4)
    pixels[..., 3] = 255
    pixels[0, 0, 3] = alpha
    return saved(Image.fromarray(pixels), "PNG")


def _palette(transparent: bool) -> bytes:
    image = Image.fromarray(noise(high=8)).convert("P")
    image.putpalette([c for i in range(8) for c in (30 * i, 255 - 30 * i, 7 * i)])
    return saved(image, "PNG", transparency=3) if transparent else saved(image, "PNG")


def _exif(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(_grey(), kind, exif=exif)


def _bad_crc() -> bytes:
    data = bytearray(_plain())
    data[-5] ^= 1
    return bytes(data)


def _damaged_stream() -> bytes:
    body = bytearray(zlib.compress(grey_lines(noise())))
    body[20:24] = b"\xff\xff\xff\xff"
    head = struct.pack(">IIBBBBB", 50, 40, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", bytes(body))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def _jpeg_patched(rows: int, cols: int) -> bytes:
    data = bytearray(saved(_grey(), "JPEG"))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", rows, cols)
    return bytes(data)


def _jpeg_marker(marker: int) -> bytes:
    data = bytearray(saved(_grey(), "JPEG"))
    data[data.find(b"\xff\xc0") + 1] = marker
    return bytes(data)


def tiff(rows: int = 40, cols: int = 50, **tags: int) -> bytes:
    """A little-endian TIFF of one strip; tags overwrite the usual values by number (t259=4)."""
    values = {256: cols, 257: rows, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: rows, 279: 2000}
    values |= {int(k[1:]): v for k, v in tags.items()}
    strip = noise().tobytes()
    entries = b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in sorted(values.items()))
    head = struct.pack("<2sHI", b"II", 42, 8 + len(strip))
    return head + strip + struct.pack("<H", len(values)) + entries + struct.pack("<I", 0)


def _pages() -> bytes:
    return saved(_grey(), "TIFF", save_all=True, append_images=[_grey()])


def _bmp_patched(rows: int, cols: int) -> bytes:
    data = bytearray(saved(_grey(), "BMP"))
    data[18:26] = struct.pack("<ii", cols, rows)
    return bytes(data)


def _p(variant: str, make: Callable[[], bytes], verdict: str, name: str = "a.png") -> Row:
    row, _, variant = variant.partition(" ")
    outcome, _, reason = verdict.partition(" ")
    return Row(row, variant.replace(" ", "-"), outcome, reason or None, file(name, make))


_SHORT = grey_lines(noise(100, 2000))
_TEXT = b"Comment\0\0"

IMAGE_ROWS: tuple[Row, ...] = (
    _p("P01 png 50000 squared", lambda: png(50_000, 50_000, bytes(100)), "refused too-large"),
    _p("P01 png one side 8193", lambda: png(20, 8193, bytes(20 * 8194)), "refused too-large"),
    _p("P01 png side at limit", lambda: png(16, 8192, grey_lines(noise(16, 8192))), "used"),
    _p("P01 jpeg 65500 squared", lambda: _jpeg_patched(65_500, 65_500), "refused too-large"),
    _p("P01 tiff 50000 squared", lambda: tiff(50_000, 50_000, t259=5), "refused too-large"),
    _p("P01 bmp 30000 squared", lambda: _bmp_patched(30_000, 30_000), "refused too-large"),
    _p("P02 2000 rows 100 there", lambda: png(2000, 2000, _SHORT), "refused truncated-pixels"),
    _p("P02 13000 rows 100 there", lambda: png(13_000, 13_000, bytes(13_001 * 100)),
       "refused too-large"),
    _p("P02 one byte short", lambda: png(40, 50, grey_lines(noise())[:-1]),
       "refused truncated-pixels"),
    _p("P02 interlaced short", lambda: png(40, 50, grey_lines(noise())[:900], interlace=1),
       "refused truncated-pixels"),
    _p("P02 tiff strip short", lambda: tiff(400, 500), "refused truncated-pixels"),
    _p("P02 more data than pixels", lambda: png(40, 50, grey_lines(noise(80, 50))),
       "refused decompression-bomb"),
    _p("P03 ztxt 200 MB", lambda: png(40, 50, grey_lines(noise()),
       before=chunk(b"zTXt", _TEXT + zeros(200 << 20))), "refused decompression-bomb"),
    _p("P03 itxt 64 MB", lambda: png(40, 50, grey_lines(noise()),
       before=chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros(64 << 20))),
       "refused decompression-bomb"),
    _p("P03 iccp 64 MB", lambda: png(40, 50, grey_lines(noise()),
       before=chunk(b"iCCP", _TEXT + zeros(64 << 20))), "refused decompression-bomb"),
    _p("P03 pixels 256 MB", lambda: png(40, 50, bytes(256 << 20)), "refused decompression-bomb"),
    _p("P03 short text is fine", lambda: png(40, 50, grey_lines(noise()),
       before=chunk(b"zTXt", _TEXT + zlib.compress(b"words"))), "used"),
    _p("P04 bad crc", _bad_crc, "refused codec-error"),
    _p("P04 cut in half", lambda: _plain()[:1000], "refused truncated"),
    _p("P04 no end chunk", lambda: _plain()[:-12], "refused truncated"),
    _p("P04 zero rows", lambda: png(0, 10, b"\0"), "refused too-small"),
    _p("P04 damaged stream", _damaged_stream, "refused codec-error"),
    _p("P04 impossible bits", lambda: png(40, 50, grey_lines(noise()), bits=7),
       "refused codec-error"),
    _p("P04 empty", lambda: b"", "refused empty"),
    _p("P04 random bytes", lambda: noise(30, 30).tobytes(), "refused not-an-image"),
    _p("P04 text", lambda: b"no picture at all", "refused not-an-image"),
    _p("P04 jpeg cut", lambda: saved(_grey(), "JPEG")[:900], "refused truncated-pixels", "a.jpg"),
    _p("P04 jpeg cut in headers", lambda: saved(_grey(), "JPEG")[:100], "refused truncated"),
    _p("P04 tiff cut", lambda: tiff()[:600], "refused truncated", "a.tif"),
    _p("P04 tiff strip outside", lambda: tiff(t273=1 << 30), "refused truncated-pixels"),
    _p("P04 bmp cut", lambda: saved(_grey(), "BMP")[:1500], "refused truncated-pixels", "a.bmp"),
    _p("P05 grey 8", _plain, "used"),
    _p("P05 grey 16", lambda: saved(Image.fromarray(noise(high=65536)), "PNG"), "used"),
    _p("P05 colour 16", lambda: imagecodecs.png_encode(noise(channels=3, high=65536)), "used"),
    _p("P05 grey tiff 16", lambda: saved(Image.fromarray(noise(high=65536)), "TIFF"), "used"),
    _p("P05 one bit", lambda: saved(Image.fromarray(noise() > 99), "PNG"), "used"),
    _p("P05 colour", lambda: saved(Image.fromarray(noise(channels=3)), "PNG"), "used"),
    _p("P05 equal planes", lambda: saved(_grey().convert("RGB"), "PNG"), "used"),
    _p("P05 palette", lambda: _palette(False), "used"),
    _p("P05 palette with alpha", lambda: _palette(True), "refused format-refused"),
    _p("P05 rgba opaque", lambda: _rgba(255), "used"),
    _p("P05 rgba transparent", lambda: _rgba(0), "refused format-refused"),
    _p("P05 grey with alpha", lambda: saved(_grey().convert("LA"), "PNG"), "used"),
    _p("P05 cmyk jpeg", lambda: saved(_grey().convert("CMYK"), "JPEG"), "refused format-refused"),
    _p("P05 jpeg", lambda: saved(_grey(), "JPEG"), "used", "a.jpg"),
    _p("P05 jpeg progressive", lambda: saved(_grey(), "JPEG", progressive=True), "used", "a.jpg"),
    _p("P05 jpeg named png", lambda: saved(_grey(), "JPEG"), "used"),
    _p("P05 png named jpg", _plain, "used", "a.jpg"),
    _p("P05 jpeg lossless", lambda: _jpeg_marker(0xC3), "refused format-refused"),
    _p("P05 jpeg arithmetic", lambda: _jpeg_marker(0xC9), "refused format-refused"),
    _p("P05 exif jpeg", lambda: _exif("JPEG"), "used", "a.jpg"),
    _p("P05 exif png", lambda: _exif("PNG"), "used"),
    _p("P05 exif tiff", lambda: _exif("TIFF"), "used", "a.tif"),
    _p("P05 animated png", lambda: saved(_grey(), "PNG", save_all=True,
       append_images=[Image.fromarray(noise(channels=0)[::-1].copy())]), "refused animated"),
    _p("P05 gif", lambda: saved(_grey(), "GIF"), "refused format-refused", "a.gif"),
    _p("P05 webp", lambda: saved(_grey(), "WEBP"), "refused format-refused", "a.webp"),
    _p("P05 eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
       "refused format-refused", "a.eps"),
    _p("P05 svg", lambda: b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
       "refused format-refused", "a.svg"),
    _p("P05 pdf", lambda: b"%PDF-1.7\n", "refused format-refused", "a.pdf"),
    _p("P05 fax tiff", lambda: tiff(t258=1, t259=4), "refused format-refused", "a.tif"),
    _p("P05 float tiff", lambda: saved(Image.fromarray(noise().astype(np.float32)), "TIFF"),
       "refused format-refused", "a.tif"),
    _p("P05 big tiff", lambda: b"II+\0\x08\0\0\0" + bytes(64), "refused format-refused", "a.tif"),
    _p("P05 tiff pages", _pages, "refused animated", "a.tif"),
    _p("P05 tiff", tiff, "used", "a.tif"),
    _p("P05 tiff lzw", lambda: saved(_grey(), "TIFF", compression="tiff_lzw"), "used", "a.tif"),
    _p("P05 bmp", lambda: saved(_grey(), "BMP"), "used", "a.bmp"),
    _p("P05 bmp colour", lambda: saved(Image.fromarray(noise(channels=3)), "BMP"), "used", "a.bmp"),
    _p("P06 1 x 1", lambda: png(1, 1, b"\0\x07"), "refused too-small"),
    _p("P06 15 x 15", lambda: png(15, 15, grey_lines(noise(15, 15))), "refused too-small"),
    _p("P06 16 x 16", lambda: png(16, 16, grey_lines(noise(16, 16))), "used"),
    _p("P06 20000 x 2", lambda: png(20_000, 2, grey_lines(noise(20_000, 2))), "refused too-small"),
    _p("P06 all black", lambda: png(40, 50, bytes(51 * 40)), "refused constant-image"),
    _p("P06 all white", lambda: saved(Image.new("RGB", (50, 40), "white"), "PNG"),
       "refused constant-image"),
)  # fmt: skip


# --- Videos ---------------------------------------------------------------------------------


def clip_frames(count: int, rows: int = 48, cols: int = 64) -> np.ndarray:
    """Frames (T,H,W) with a bright square in the top-left corner and a moving bar."""
    frames = np.full((count, rows, cols), 40, np.uint8)
    frames[:, : rows // 4, : cols // 4] = 220
    for t in range(count):
        frames[t, rows // 2 :, (3 * t) % (cols - 4) : (3 * t) % (cols - 4) + 4] = 150
    return frames


def encoded(
    path: Path, *, codec: str = "mpeg4", kind: str | None = None, count: int = 20,
    stamps: list[int] | None = None, size: tuple[int, int] = (48, 64), options: dict | None = None,
    streams: int = 1, sound: bool = False, container: dict | None = None,
) -> Path:  # fmt: skip
    """A video written with PyAV; stamps are presentation times in 1/100 s."""
    from fractions import Fraction

    with av.open(str(path), "w", format=kind, options=container or {}) as container:
        video = []
        for _ in range(streams):
            stream = container.add_stream(codec, rate=25, options=options or {})
            stream.width, stream.height = size[1], size[0]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if stamps is not None:
                stream.codec_context.time_base = Fraction(1, 100)
            video.append(stream)
        noise_track = container.add_stream("aac", rate=8000) if sound else None
        for t, frame in enumerate(clip_frames(count, *size) if video else ()):
            for stream in video:
                picture = av.VideoFrame.from_ndarray(np.repeat(frame[..., None], 3, 2), "rgb24")
                if stamps is not None:
                    picture.pts, picture.time_base = stamps[t], Fraction(1, 100)
                container.mux(stream.encode(picture))
        for stream in video:
            container.mux(stream.encode())
        if noise_track is not None:
            sound_frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 8000), np.float32), "fltp", "mono"
            )
            sound_frame.rate = 8000
            container.mux(noise_track.encode(sound_frame))
            container.mux(noise_track.encode())
    return path


def _changed(name: str, change: Callable[[bytes], bytes], **how: object) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = encoded(folder / name, **how)  # type: ignore[arg-type]
        path.write_bytes(change(path.read_bytes()))
        return path

    return build


def _made(name: str, **how: object) -> Callable[[Path], Path]:
    return _changed(name, lambda data: data, **how)


def _cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def _flipped(seed: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        draw = np.random.default_rng(seed)
        damaged = bytearray(data)
        for at in draw.integers(0, len(data), 64):
            damaged[at] ^= 1 << int(draw.integers(8))
        return bytes(damaged)

    return change


def _without_moov(data: bytes) -> bytes:
    return data[: data.rfind(b"moov") - 4]


def _rotated(data: bytes) -> bytes:
    """The track header says: show turned by 90 degrees clockwise (as phones write it)."""
    at = data.find(b"tkhd") + 4 + 40
    one, depth = 1 << 16, 1 << 30
    turn = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, depth)
    return data[:at] + turn + data[at + 36 :]


def _elsewhere(data: bytes) -> bytes:
    """The data reference names another file instead of this one."""
    at = data.find(b"url ", data.find(b"dref")) + 4
    return data[:at] + struct.pack(">I", 0) + data[at + 4 :]


def _fewer_declared(data: bytes) -> bytes:
    """AVI whose stream header declares two frames more than there are."""
    at = data.find(b"strh") + 8 + 32
    declared = struct.unpack_from("<I", data, at)[0] + 2
    return data[:at] + struct.pack("<I", declared) + data[at + 4 :]


def _stream(offset: int, value: int) -> Callable[[bytes], bytes]:
    """AVI with a number of its stream header changed (20 scale, 24 rate, 32 frames)."""

    def change(data: bytes) -> bytes:
        at = data.find(b"strh") + 8 + offset
        return data[:at] + struct.pack("<I", value) + data[at + 4 :]

    return change


def _fragmented(folder: Path) -> Path:
    """MP4 written in pieces, as recorders do; nothing says how many frames it has."""
    return encoded(folder / "a.mp4", container={"movflags": "frag_keyframe+empty_moov"})


def _v(variant: str, build: Callable[[Path], Path], verdict: str) -> Row:
    row, _, variant = variant.partition(" ")
    outcome, _, reason = verdict.partition(" ")
    return Row(row, variant.replace(" ", "-"), outcome, reason or None, build, "video")


def _text(name: str, words: str) -> Callable[[Path], Path]:
    return file(name, words.encode)


VIDEO_ROWS: tuple[Row, ...] = (
    _v("Vd01 mp4 cut at 30", _changed("a.mp4", _cut(0.3)), "refused truncated"),
    _v("Vd01 mp4 cut at 99", _changed("a.mp4", _cut(0.99)), "refused truncated"),
    _v("Vd01 avi cut at 30", _changed("a.avi", _cut(0.3), codec="mjpeg"), "refused truncated"),
    _v("Vd01 avi cut at 99", _changed("a.avi", _cut(0.99), codec="mjpeg"), "refused truncated"),
    _v("Vd01 wmv cut at 30", _changed("a.wmv", _cut(0.3), codec="wmv2", kind="asf"),
       "refused truncated"),
    _v("Vd01 moov missing", _changed("a.mp4", _without_moov), "refused truncated"),
    _v("Vd01 declares too many", _changed("a.avi", _fewer_declared, codec="mjpeg"),
       "refused bad-video"),
    *(_v(f"Vd01 mp4 flips {seed}", _changed("a.mp4", _flipped(seed)), "refused")
      for seed in range(8)),
    *(_v(f"Vd01 avi flips {seed}", _changed("a.avi", _flipped(seed), codec="mjpeg"), "refused")
      for seed in range(8)),
    _v("Vd01 empty", _text("a.mp4", ""), "refused empty"),
    _v("Vd01 garbage", file("a.mp4", lambda: noise(30, 30).tobytes()), "refused format-refused"),
    _v("Vd02 mp4", _made("a.mp4"), "used"),
    _v("Vd02 avi mjpeg", _made("a.avi", codec="mjpeg"), "used"),
    _v("Vd02 wmv", _made("a.wmv", codec="wmv2", kind="asf"), "used-with-warning bad-video"),
    _v("Vd02 avi named mp4", _made("a.mp4", codec="mjpeg", kind="avi"), "used"),
    _v("Vd02 variable rate", _made("a.mp4", stamps=[t * 4 + (t > 9) * 50 for t in range(20)]),
       "used-with-warning converted"),
    _v("Vd02 no rate", _changed("a.avi", _stream(24, 0), codec="mjpeg"),
       "used-with-warning no-timing"),
    _v("Vd02 million per second", _changed("a.avi", _stream(24, 10**6), codec="mjpeg"),
       "used-with-warning no-timing"),
    _v("Vd02 ten hours", _made("a.mp4", stamps=[t * 180_000 for t in range(20)]),
       "used-with-warning no-timing"),
    _v("Vd02 negative times", _made("a.mp4", stamps=[t * 4 - 20 for t in range(20)]),
       "refused bad-video"),
    _v("Vd02 declares two billion", _changed("a.avi", _stream(32, 2**31 - 1), codec="mjpeg"),
       "refused too-large"),
    _v("Vd02 fragmented", _fragmented, "used-with-warning bad-video"),
    _v("Vd02 b frames", _made("a.mp4", options={"bf": "2"}), "used"),
    _v("Vd02 h264 b frames", _made("a.mp4", codec="libx264", options={"bf": "3"}), "used"),
    _v("Vd02 rotated", _changed("a.mp4", _rotated), "used"),
    _v("Vd02 two video streams", _made("a.mp4", streams=2), "refused bad-video"),
    _v("Vd02 sound only", _made("a.mp4", streams=0, sound=True), "refused bad-video"),
    _v("Vd02 with sound", _made("a.mp4", sound=True), "used-with-warning converted"),
    _v("Vd02 one frame", _made("a.mp4", count=1), "used"),
    _v("Vd02 too many frames", _made("a.avi", codec="mjpeg", count=20_001, size=(16, 16)),
       "refused too-large"),
    _v("Vd02 16384 wide", _made("a.avi", codec="mjpeg", count=1, size=(16, 16_384)),
       "refused too-large"),
    _v("Vd02 too small", _made("a.mp4", size=(8, 8)), "refused too-small"),
    _v("Vd03 m3u8", _text("a.mp4", "#EXTM3U\n#EXTINF:1,\nhttp://192.0.2.1/a.ts\n"),
       "refused remote-reference"),
    _v("Vd03 concat list", _text("a.avi", "ffconcat version 1.0\nfile '/etc/passwd'\n"),
       "refused remote-reference"),
    _v("Vd03 concat protocol", _text("a.mp4", "concat:/etc/passwd|/etc/hosts"),
       "refused remote-reference"),
    _v("Vd03 address", _text("a.mp4", "http://192.0.2.1/clip.mp4\n"), "refused remote-reference"),
    _v("Vd03 data reference", _changed("a.mp4", _elsewhere), "refused remote-reference"),
)  # fmt: skip
