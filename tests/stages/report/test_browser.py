"""The page in a real browser. Skipped, saying so, where there is none."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.session import Results
from stages.report.page import render
from stages.summary.summary import summarise

Browse = Callable[..., tuple[str, str]]
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
NAMES = re.compile(r'<th scope="row" class="name"[^>]*>([^<]*)')


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a folder, and every path that was asked of it."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given: object) -> None:
            super().__init__(*given, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_request(self, *_: object) -> None:
            asked.append(self.path)

        def log_message(self, *_: object) -> None:
            """Keep standard error for the tests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def test_the_page_renders_its_charts_in_silence_and_asks_for_nothing_else(
    browse: Browse, served: tuple[str, list[str]], tmp_path: Path, page: str
) -> None:
    address, asked = served
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    became, said = browse(f"{address}/report.html")
    assert said == ""
    assert asked == ["/report.html"]
    assert became.count('<svg class="chart"') == page.count('<svg class="chart"') > 6
    sortable = re.findall(r'<table class="[^"]*sortable.*?</table>', page, re.S)
    assert (
        became.count('<button type="button">')
        == sum(table.count('<th scope="col"') for table in sortable)
        > 6
    )


def test_the_policy_stops_scripts_and_loads_that_are_not_the_pages_own(
    browse: Browse, served: tuple[str, list[str]], tmp_path: Path, page: str
) -> None:
    address, asked = served
    intruder = f'<img src="{address}/x.png"><script>document.title = "taken"</script>'
    (tmp_path / "report.html").write_text(
        page.replace("<header>", f"{intruder}<header>"), encoding="utf-8"
    )
    became, said = browse(f"{address}/report.html")
    assert asked == ["/report.html"]
    assert "<title>Small</title>" in became
    assert said.count("Content Security Policy") >= 2


def test_pictures_of_faces_load_and_would_be_missed(
    browse: Browse, tmp_path: Path, pictures: Results
) -> None:
    page = render(summarise(pictures, {"fmr": [1e-1], "crops": 0}))
    assert page.count("<img") > 4
    said = []
    for policy in ("img-src data:", "img-src 'none'"):
        (tmp_path / "copy.html").write_text(page.replace("img-src data:", policy), encoding="utf-8")
        said.append(browse((tmp_path / "copy.html").as_uri(), "--window-size=1280,9000")[1])
    assert said[0] == ""
    assert "data:image/jpeg" in said[1]


def names(page: str) -> list[str]:
    """The names of the rows of the first table, from above."""
    body = page[page.index('<table class="rules') : page.index("</table>")]
    return [name.strip() for name in NAMES.findall(body)]


def clicked(browse: Browse, folder: Path, page: str, heading: str, times: int) -> list[str]:
    """The names of the rows of the first table, from above, after a number of clicks on a
    heading."""
    driver = (
        f"<script>for (let i = 0; i < {times}; i++)"
        ' [...document.querySelectorAll(".rules thead th")]'
        f'.find((th) => th.textContent.trim().startsWith("{heading}"))'
        '.querySelector("button").click();</script></body>'
    )
    path = folder / "copy.html"
    path.write_text(POLICY.sub("", page).replace("</body>", driver), encoding="utf-8")
    became, said = browse(path.as_uri())
    assert said == ""
    return names(became)


def values(page: str, column: int) -> list[float]:
    """The exact numbers of a column of the first table, in the order of its rows."""
    body = page[page.index('<table class="rules') : page.index("</table>")]
    return [
        float(re.findall(r'data-value="([^"]*)"', row)[column])
        for row in re.findall(r"<tr class=.*?</tr>", body, re.S)
    ]


def test_a_click_on_a_heading_sorts_and_another_one_turns_it_round(
    browse: Browse, tmp_path: Path, page: str
) -> None:
    before = names(page)
    down, up = (clicked(browse, tmp_path, page, "rule", times) for times in (1, 2))
    assert down == sorted(before, reverse=True)
    assert up == sorted(before)
    assert before not in (down, up)


def test_numbers_are_sorted_as_numbers(browse: Browse, tmp_path: Path, page: str) -> None:
    before = names(page)
    rank = values(page, -3)
    best_first = clicked(browse, tmp_path, page, "rank-1", 1)
    assert best_first == [before[i] for i in sorted(range(len(before)), key=lambda i: -rank[i])]


def test_a_table_that_is_wider_than_the_page_says_so_until_its_end_is_seen(
    browse: Browse, tmp_path: Path, page: str
) -> None:
    look = (
        "const hint = document.querySelector('#result .hint'), region ="
        " document.querySelector('#result .scroll');"
    )
    scroll = (
        "region.scrollLeft = 9999; region.dispatchEvent(new Event('scroll')); document.title = seen"
        " + ' ' + hint.hidden;"
    )
    driver = f"<script>{look} const seen = hint.hidden; {scroll}</script></body>"
    (tmp_path / "copy.html").write_text(
        POLICY.sub("", page).replace("</body>", driver), encoding="utf-8"
    )
    narrow, _ = browse((tmp_path / "copy.html").as_uri(), "--window-size=600,1200")
    wide, _ = browse((tmp_path / "copy.html").as_uri(), "--window-size=1800,1200")
    assert "<title>false true</title>" in narrow
    assert "<title>true true</title>" in wide


@pytest.mark.parametrize("width", [420, 1280])
def test_nothing_is_wider_than_the_window(
    browse: Browse, tmp_path: Path, page: str, width: int
) -> None:
    driver = (
        "<script>document.title = document.documentElement.scrollWidth - innerWidth</script></body>"
    )
    (tmp_path / "copy.html").write_text(
        POLICY.sub("", page).replace("</body>", driver), encoding="utf-8"
    )
    became, _ = browse(
        (tmp_path / "copy.html").as_uri(), f"--window-size={width},1200", "--hide-scrollbars"
    )
    assert "<title>0</title>" in became
