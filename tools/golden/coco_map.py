"""Random boxes measured by pycocotools, for crates/evals/src/quality/pictures/detect.rs.

python tools/golden/coco_map.py > testdata/vision/coco_map.json   (pycocotools 2.0, numpy)
"""
import contextlib
import io
import json

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

rng = np.random.default_rng(7)
cases = []
for n_images, n_classes, noise in [(3, 2, 4), (5, 3, 10), (4, 1, 20), (6, 4, 6), (2, 5, 2), (5, 2, 40)]:
    pictures, images, anns, dets = [], [], [], []
    for i in range(n_images):
        truth, found = [], []
        for _ in range(rng.integers(1, 8)):
            x, y = rng.integers(0, 150, 2)
            w, h = rng.integers(10, 60, 2)
            c = int(rng.integers(0, n_classes))
            truth.append([int(x), int(y), int(x + w), int(y + h), c])
            for _ in range(rng.integers(0, 3)):
                d = rng.integers(-noise, noise + 1, 4) / 4
                b = [x + d[0], y + d[1], x + w + d[2], y + h + d[3]]
                k = c if rng.random() < 0.8 else int(rng.integers(0, n_classes))
                found.append([float(v) for v in b] + [k, round(float(rng.random()), 3)])
        pictures.append(dict(truth=truth, found=found))
        images.append(dict(id=i + 1))
        for t in truth:
            w, h = t[2] - t[0], t[3] - t[1]
            anns.append(dict(id=len(anns) + 1, image_id=i + 1, category_id=t[4] + 1, bbox=[t[0], t[1], w, h], area=w * h, iscrowd=0))
        for f in found:
            dets.append(dict(image_id=i + 1, category_id=f[4] + 1, bbox=[f[0], f[1], f[2] - f[0], f[3] - f[1]], score=f[5]))
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = dict(info={}, images=images, annotations=anns, categories=[dict(id=c + 1) for c in range(n_classes)])
        gt.createIndex()
        e = COCOeval(gt, gt.loadRes(dets), "bbox")
        e.evaluate()
        e.accumulate()
        e.summarize()
    cases.append(dict(pictures=pictures, map_50_95=float(e.stats[0]), map_50=float(e.stats[1])))
print(json.dumps(cases))
