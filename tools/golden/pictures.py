"""Small picture files of awkward kinds, for crates/tasks/src/pixels/decode/tests.rs.

python tools/golden/pictures.py testdata/vision/pictures   (Pillow 13.0.0)
"""
import pathlib
import sys

import numpy as np
from PIL import Image

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
y, x = np.mgrid[0:16, 0:24]
base = np.stack([x * 10, y * 15, (x + y) * 6], -1).astype(np.uint8)
base[:6, :8] = (250, 20, 20)  # the upper left corner is red
img = Image.fromarray(base)
for turn in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = turn
    img.save(out / f"turn{turn}.jpg", quality=95, exif=exif)
img.convert("CMYK").save(out / "cmyk.jpg", quality=95)
img.save(out / "progressive.jpg", quality=95, progressive=True)
img.convert("P").save(out / "palette.png")
img.convert("1").save(out / "bits.png")
img.save(out / "lossy.webp", quality=90)
frames = [Image.new("RGB", (24, 16), c) for c in ("red", "lime", "blue")]
frames[0].save(out / "animated.gif", save_all=True, append_images=frames[1:], duration=50, loop=0)
frames[0].save(out / "animated.webp", save_all=True, append_images=frames[1:], duration=50, lossless=True)
frames[0].save(out / "animated.png", save_all=True, append_images=frames[1:], duration=50)
