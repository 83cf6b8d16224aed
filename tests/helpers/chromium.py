"""A headless Chromium for tests of pages, by playwright (extra [page-test]): make test-page.

A module that imports this is skipped where playwright is not installed.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

__all__ = ["CONTRAST", "IN_CHROMIUM", "running_chromium", "sync_api"]

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-page")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IN_CHROMIUM = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: make system-page"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
CONTRAST = """() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const pixel = (colors) => {
    context.clearRect(0, 0, 1, 1);
    for (const color of colors) { context.fillStyle = color; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faults = [];
  for (const element of document.querySelectorAll("main *, header *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.closest("svg, script, noscript, :disabled") || !element.getClientRects().length) continue;
    const backs = [];
    for (let at = element; at; at = at.parentElement) backs.unshift(getComputedStyle(at).backgroundColor);
    const back = pixel(backs), front = pixel([...backs, getComputedStyle(element).color]);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) faults.push(`${element.tagName} ${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return faults;
}"""
"""In the page: the texts whose contrast with what is behind them is below 4.5, WCAG's level AA."""


@contextmanager
def running_chromium():
    with sync_api.sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()
