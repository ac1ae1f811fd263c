"""schemathesis over the server's own openapi.json: no server error, no answer that is not as described.

usage: contract.py KUN CACHE [EXAMPLES]
  KUN       the kun binary
  CACHE     folder with the clients' virtual environment
  EXAMPLES  most random requests for a route [default: 4]
"""
import subprocess
import sys
from pathlib import Path

from server import PICTURES, serve

# Not among them: that every body which fits its schema is accepted. Models that are not there, tokens that a vocabulary
# lacks and the like are refused, which a schema cannot say.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method,allow_header_conformance,use_after_free"


def run(kun, venv, examples="4"):
    """Whether all is as described."""
    # The null model answers at once, whatever is asked; 128 tokens bound what is written.
    models = ["--null-model", "all-minilm-l6-v2", *PICTURES, "--context", "128", "--offline"]
    server, base = serve(kun, models)
    try:
        command = [venv / "bin/st", "run", f"{base}/openapi.json", "--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", examples, "--workers", "1", "--seed", "1", "--request-timeout", "60", "--continue-on-failure", "--no-shrink", "--warnings", "off", "--suppress-health-check", "all", "--generation-database", "none"]
        done = subprocess.run([str(part) for part in command], cwd="/tmp")
        alive = server.poll() is None
    finally:
        server.terminate()
        server.wait(40)
    return done.returncode == 0 and alive


if __name__ == "__main__":
    sys.exit(not run(sys.argv[1], Path(sys.argv[2]) / "venv-clients", *sys.argv[3:4]))
