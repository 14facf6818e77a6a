"""PDF: whole, the same each time, fetching nothing, and refused in words where it cannot be made."""

from __future__ import annotations

import base64
import re
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from renalkit.errors import Exit, MissingExtra
from renalkit.writers.pdf import page_pdf


@pytest.fixture
def installed() -> None:
    """Skips where the extra, or a library of the system, is not there."""
    try:
        page_pdf("<p>x</p>")
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and the requests it got."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", asked
        http.shutdown()
        thread.join()


def png() -> bytes:
    ok, data = cv2.imencode(".png", np.full((8, 8), 200, np.uint8))
    assert ok
    return data.tobytes()


def images(pdf: bytes) -> int:
    return len(re.findall(rb"/Subtype /Image", pdf))


@pytest.mark.usefixtures("installed")
def test_pictures_inside_the_page_are_kept() -> None:
    inside = base64.b64encode(png()).decode()
    pdf = page_pdf(f'<p>x</p><img src="data:image/png;base64,{inside}">')
    assert pdf.startswith(b"%PDF-")
    assert images(pdf) == 1


@pytest.mark.usefixtures("installed")
def test_nothing_is_fetched(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    address, asked = server
    (tmp_path / "secret.png").write_bytes(png())
    secret = (tmp_path / "secret.png").as_uri()
    pdf = page_pdf(
        f'<link rel="stylesheet" href="{address}/a.css"><style>@import "{address}/b.css";'
        f"@font-face {{ font-family: F; src: url({address}/f.woff) }} p {{ font-family: F;"
        f' background: url({address}/c.png) }}</style><p>x</p><img src="{address}/d.png">'
        f'<img src="{secret}"><object data="{secret}"></object>'
        f'<svg width="9" height="9"><image href="{secret}" width="9" height="9"/></svg>'
    )
    assert asked == []
    assert images(pdf) == 0


@pytest.mark.usefixtures("installed")
def test_the_same_page_gives_the_same_bytes() -> None:
    page = "<title>t</title><details><summary>s</summary><p>folded</p></details><p>x</p>"
    first = page_pdf(page)
    time.sleep(1.1)  # fonts carry a time in seconds
    assert page_pdf(page) == first


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingExtra, match="weasyprint is not installed") as caught:
        page_pdf("<p>x</p>")
    assert "extra 'pdf'" in caught.value.remedy
    assert caught.value.exit_code == Exit.USAGE


def test_without_pango_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WeasyPrint raises OSError on import where a library of the system is missing."""
    (tmp_path / "weasyprint.py").write_text("raise OSError('cannot load library libpango')\n")
    for name in [n for n in sys.modules if n.partition(".")[0] == "weasyprint"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match="cannot load library libpango") as caught:
        page_pdf("<p>x</p>")
    assert "libpangoft2-1.0-0" in caught.value.expected
