"""Pillow's resize on a picture of pseudo-random bytes, for crates/tasks/src/pixels/resize.rs.

python tools/golden/pixels.py > testdata/vision/resize.json   (Pillow 13.0.0, numpy)
"""
import json
import zlib

import numpy as np
from PIL import Image

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def picture(w, h, c):
    state, out = 12345, []
    for _ in range(w * h * c):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(state >> 24)
    a = np.array(out, np.uint8).reshape(h, w, c)
    return a[..., 0] if c == 1 else a


cases = []
for w, h, c in [(37, 23, 3), (64, 48, 1), (101, 7, 4)]:
    for to in [(16, 16), (37, 50), (90, 23), (256, 5), (1, 1), (w * 2, h * 2)]:
        for name, f in FILTERS.items():
            # Pillow premultiplies alpha of RGBA; bands are resized alone here.
            bands = [Image.fromarray(np.ascontiguousarray(b)) for b in np.moveaxis(np.atleast_3d(picture(w, h, c)), 2, 0)]
            # Two calls: Pillow 13 began to take columns first where that is cheaper.
            out = np.stack([np.asarray(b.resize((to[0], h), f).resize(to, f)) for b in bands], -1).tobytes()
            cases.append(dict(size=[w, h], channels=c, to=list(to), filter=name, sum=sum(out),
                              head=list(out[:12]), crc=zlib.crc32(out)))
print(json.dumps(cases))
