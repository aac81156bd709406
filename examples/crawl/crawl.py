"""Crawl a site and count its words: a task that enqueues further tasks, and a program that gathers what they found.

    python crawl.py http://localhost:8000/ --depth 3

The queue is crawl.sqlite in the working directory. One page is read at a time, as a polite guest does.
"""

from __future__ import annotations

import argparse
import re
import urllib.error
import urllib.request
from collections import Counter
from html.parser import HTMLParser
from typing import TypedDict
from urllib.parse import urldefrag, urljoin, urlsplit

from litetq import LiteTQ

TIMEOUT = 10  # seconds without an answer of the server
LARGEST = 2_000_000  # bytes of a page that are read

app = LiteTQ("crawl", broker="crawl.sqlite")


class Busy(Exception):
    """The server asks to come again later."""


class Page(TypedDict):
    """What one task found out about one page."""

    url: str
    title: str
    words: dict[str, int]
    links: int


class Reader(HTMLParser):
    """Takes title, links and words out of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.title = ""
        self.links: list[str] = []
        self.words: Counter[str] = Counter()
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data.strip()
        elif self._inside not in ("script", "style"):
            self.words.update(word.lower() for word in re.findall(r"\w{4,}", data))


# acks_late: to read a page twice does no harm. max_retries: a server that stays busy is a failure in the end.
@app.task(acks_late=True, autoretry_for=(Busy, TimeoutError), retry_kwargs={"countdown": 1}, max_retries=3)
def fetch(url: str, run: str, depth: int) -> Page:
    """Read a page, enqueue those it links to on the same host, down to `depth`; return what is in it."""
    page = Reader(download(url))
    links = {urldefrag(urljoin(url, link)).url for link in page.links}
    inside = {link for link in links if urlsplit(link)[:2] == urlsplit(url)[:2]}
    for link in sorted(inside) if depth else ():
        # if_new: no page comes twice, however many others link to it.
        fetch.apply_async((link, run, depth - 1), task_id=page_id(run, link), if_new=True)
    return {"url": url, "title": page.title, "words": dict(page.words), "links": len(links)}


def page_id(run: str, url: str) -> str:
    return f"{run} {url}"


def download(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            content: bytes = answer.read(LARGEST)
    except urllib.error.HTTPError as error:
        if error.code in (429, 503):
            raise Busy(f"{error.code} {error.reason}") from error
        # An HTTPError holds an open connection and cannot travel: its words can.
        raise ValueError(f"{error.code} {error.reason}") from error
    return content.decode("utf-8", errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description="Crawl a site and count its words.")
    parser.add_argument("url")
    parser.add_argument("--depth", type=int, default=2, help="clicks from the first page")
    parser.add_argument("--run", default="1", help="a new name reads all pages anew; the same one goes on")
    said = parser.parse_args()

    first = fetch.apply_async((said.url, said.run, said.depth), task_id=page_id(said.run, said.url), if_new=True)
    words: Counter[str] = Counter()
    pages = 0
    with app.run_embedded(concurrency=1):
        # Walks from each page to those that it enqueued, and waits for each.
        for result, page in first.collect(propagate=False):
            if isinstance(page, Exception):
                print(f"failed  {str(result).removeprefix(said.run + ' ')}: {page}")
                continue
            pages += 1
            words.update(page["words"])
            print(f"{page['links']:3} links  {page['url']}  {page['title']}")
    print(f"{pages} pages; most frequent: {', '.join(f'{word} {n}' for word, n in words.most_common(5))}")


if __name__ == "__main__":
    main()
