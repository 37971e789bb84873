"""How smoothly a page of `vgx explore` follows the hand, in Chromium without a window.

    vgx explore 7 --out faces.html
    python benchmarks/explore.py faces.html
    python benchmarks/explore.py faces.html --frames drag.png    # 24 frames of the drag, to look at

The point in the triangle is moved before each frame of the browser. Counted are the frames, and
those of them that show a new image.
"""

from __future__ import annotations

import argparse
import io
import itertools
import math
import shutil
import statistics
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from tables import table

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLUMNS, ROWS = 6, 4  # of the sheet of frames
# Moves the point before each frame, as a hand does, and notes when there is a new image.
DRAG = """async (seconds) => {
  const frames = [], images = [], lasted = [];
  const next = () => new Promise(requestAnimationFrame);
  let before = $("image").dataset.shown, now = await next();
  const end = now + 1000 * seconds;
  for (; now < end; now = await next()) {
    frames.push(now);
    if ($("image").dataset.shown !== before) {
      before = $("image").dataset.shown;
      images.push(now);
      lasted.push(times.at(-1));
    }
    const angle = 2.2e-3 * now;
    weigh(weightsAt(150 + 60 * Math.sin(angle), 165 + 45 * Math.sin(1.3 * angle)));
  }
  return { frames, images, lasted };
}"""


def measure(page: Page, seconds: float) -> list[str]:
    """Drag; return frames and new images per second, the times between images, and of one image."""
    counted: dict[str, list[float]] = page.evaluate(DRAG, seconds)
    images = counted["images"]
    between = sorted(b - a for a, b in itertools.pairwise(images))
    return [
        f"{len(counted['frames']) / seconds:.1f}",
        f"{len(images) / seconds:.1f}",
        f"{between[int(0.95 * len(between))]:.1f}",
        f"{between[-1]:.1f}",
        f"{statistics.median(counted['lasted']):.1f}",
    ]


def save_frames(page: Page, file: Path) -> None:
    """Save what the browser shows while the mouse drags the point, frame beside frame."""
    box = page.locator("#triangle").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    images = []
    for i in range(COLUMNS * ROWS):
        x, y = 0.5 + 0.2 * math.sin(0.4 * i), 0.63 + 0.17 * math.sin(0.52 * i)
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        images.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB").reduce(3))
    page.mouse.up()
    width, height = images[0].size
    sheet = Image.new("RGB", (COLUMNS * width, ROWS * height))
    for i, image in enumerate(images):
        sheet.paste(image, (i % COLUMNS * width, i // COLUMNS * height))
    sheet.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="what vgx explore made")
    parser.add_argument("--seconds", type=float, default=5, help="of each drag")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--frames", type=Path, metavar="FILE", help="a PNG file of frames")
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(options.page.resolve().as_uri())
        page.wait_for_selector("#save-image:enabled", timeout=60_000)
        measure(page, 1)  # the browser compiles what is used often
        rows = [measure(page, options.seconds) for _ in range(options.repeats)]
        if options.frames:
            save_frames(page, options.frames)
        browser.close()
    head = ["frames a second", "new images a second", "ms between images, 95 %", "at most"]
    print(table([*head, "ms of the model"], rows))


if __name__ == "__main__":
    main()
