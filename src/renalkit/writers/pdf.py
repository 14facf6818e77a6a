"""How does a report become pages? PDF of a self-contained page, by the optional extra 'pdf'.

Nothing is fetched: pictures and style lie inside the page, every other address is refused. The same
page gives the same bytes on the same machine (fonts are those of the system).
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from renalkit.errors import MissingExtra

_EPOCH = "SOURCE_DATE_EPOCH"
_LIBRARIES = "libpango-1.0-0, libpangoft2-1.0-0 and libharfbuzz-subset0"


def page_pdf(html: str) -> bytes:
    """The page as PDF, folded parts opened, with page numbers.

    Raises MissingExtra: WeasyPrint, or a library of the system it needs, is not installed.
    """
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{error.name} is not installed",
            where="PDF",
            expected="WeasyPrint",
            remedy="install renalkit with the extra 'pdf', or print report.html from a browser",
        ) from error
    except OSError as error:
        raise MissingExtra(
            f"a library of the system is missing ({str(error).splitlines()[0]})",
            where="PDF",
            expected=f"Pango: on Debian and Ubuntu {_LIBRARIES}",
            remedy="install them, or print report.html from a browser",
        ) from error
    inside = URLFetcher(allowed_protocols=("data",), allow_redirects=False)
    with _no_clock():
        pages = HTML(string=html, url_fetcher=inside).write_pdf()
    assert pages is not None  # without a target the bytes are returned
    return pages


@contextmanager
def _no_clock() -> Generator[None]:
    """Fonts that are cut down get a fixed time of change, not that of now."""
    before = os.environ.get(_EPOCH)
    os.environ.setdefault(_EPOCH, "0")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_EPOCH]
