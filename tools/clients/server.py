"""What the checks share: `kun serve` and virtual environments."""
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SHARED = Path(__file__).resolve().parent.parent.parent.parent / "shared" / "models"
# Small models beside the repository: one that sees and one that makes pictures.
PICTURES = [str(folder) for folder in (SHARED / "detect/yolox_nano", SHARED / "upscale/carn_m_x2") if folder.exists()]

# A model of random weights that draws.
TESTDATA = Path(__file__).resolve().parent.parent.parent / "testdata" / "diffusion"
DRAWING = str(TESTDATA / "tiny")
# A tiny model of pictures and texts (`tools/golden/clip.py`).
CLIP = str(TESTDATA.parent / "clip")


def venv_of(cache, name, requirements):
    """A virtual environment with the packages of a file, installed once."""
    venv = cache / name
    stamp, wanted = venv / "requirements.txt", requirements.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", "-r", requirements], check=True)
        stamp.write_text(wanted)
    return venv


def serve(kun, models):
    """A server on any free port, ready; gives the process and its address."""
    server = subprocess.Popen([kun, "serve", "--port", "0", *models], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        found = re.search(r"https?://127\.0\.0\.1:\d+", line)
        if found:
            base = found.group()
            break
    else:
        raise SystemExit("the server does not start")
    os.set_blocking(server.stderr.fileno(), False)
    for _ in range(600):
        try:
            urllib.request.urlopen(base + "/readyz")
            return server, base
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server does not get ready")
