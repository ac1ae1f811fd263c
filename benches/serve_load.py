"""Load figures of `kun serve`, in one run: crowd, shared prefix, overload, leaving clients, idle and slow ones, the end.

usage: serve_load.py KUN [MODEL] [--short] [--llama-cpp PYTHON]
Starts its own server on this machine, asks it over loopback, prints one line a figure. Needs nothing but Python; with
--llama-cpp, a Python that has llama-cpp-python[server], whose server gets the same chats in turn.
"""
import concurrent.futures
import functools
import http.client
import json
import random
import re
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time

KUN = sys.argv[1]
SHORT = "--short" in sys.argv
LLAMA = sys.argv[sys.argv.index("--llama-cpp") + 1] if "--llama-cpp" in sys.argv else None
MODEL = next((a for a in sys.argv[2:] if not a.startswith("-") and a != LLAMA), "smollm2")


print = functools.partial(print, flush=True)


class Server:
    def __init__(self, *flags):
        self.process = subprocess.Popen([KUN, "serve", MODEL, "--port", "0", *flags], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        while True:
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)

    def get(self, path):
        c = self.connection()
        c.request("GET", path)
        r = c.getresponse()
        return r.status, r.read().decode()

    def post(self, body):
        c = self.connection()
        c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        return r.status, r.read()

    def first_token(self, body):
        """Seconds until the first text of a stream."""
        c = self.connection()
        started = time.perf_counter()
        c.request("POST", "/v1/chat/completions", json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
        r = c.getresponse()
        seen = b""
        while b'"content":"' not in seen.replace(b'"content":""', b""):
            seen += r.read1(4096)
        took = time.perf_counter() - started
        r.read()
        return took

    def memory_kib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))

    def idle(self):
        while True:
            status = json.loads(self.get("/v1/status")[1])
            if status["in_flight"] == 0 and all(m["pages"]["in_use"] == 0 for m in status["models"] if m["pages"]):
                return status
            time.sleep(0.05)


def chat(text, tokens, **more):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "ignore_eos": True, **more}


def crowd(server):
    tokens = 32 if SHORT else 96

    def rate(clients):
        started = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            done = list(pool.map(lambda i: server.post(chat(f"Tell story number {i}.", tokens)), range(clients)))
        assert all(status == 200 for status, _ in done)
        return clients * tokens / (time.perf_counter() - started)

    rate(1)
    if LLAMA:
        beside_llama_cpp(lambda: rate(16), tokens)
    rounds = [(rate(1), rate(16)) for _ in range(1 if SHORT else 3)]
    one, sixteen = (statistics.median(r[i] for r in rounds) for i in (0, 1))
    print(f"crowd: 1 chat {one:.1f} tokens/s, 16 chats {sixteen:.1f} tokens/s, {sixteen / one:.2f} times")


def beside_llama_cpp(ours, tokens):
    """The same sixteen chats by llama.cpp's server, rounds in turn."""
    path = subprocess.run([KUN, "pull", MODEL, "--progress", "none"], capture_output=True, text=True, check=True).stdout.strip()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--model", path, "--port", str(port), "--n_ctx", "8192", "--n_threads", str(len(__import__("os").sched_getaffinity(0)))]
    process = subprocess.Popen([LLAMA, "-m", "llama_cpp.server", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def one(i):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        body = chat(f"Tell story number {i}.", tokens)
        # It has no `ignore_eos`; what it wrote is counted.
        c.request("POST", "/v1/chat/completions", json.dumps({k: v for k, v in body.items() if k != "ignore_eos"}), {"Content-Type": "application/json"})
        return json.loads(c.getresponse().read())["usage"]["completion_tokens"]

    def theirs():
        started = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            written = sum(pool.map(one, range(16)))
        return written / (time.perf_counter() - started)

    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit("llama.cpp's server does not start: is llama-cpp-python[server] installed?")
            try:
                one(0)
                break
            except OSError:
                time.sleep(0.2)
        rounds = [(ours(), theirs()) for _ in range(1 if SHORT else 3)]
    finally:
        process.terminate()
        process.wait()
    kun, llama = (statistics.median(r[i] for r in rounds) for i in (0, 1))
    print(f"llama.cpp's server: 16 chats {llama:.1f} tokens/s, kun {kun:.1f}, {kun / llama:.2f} times")


def prefix(server):
    ratios = []
    for round in range(1 if SHORT else 5):
        # About a thousand tokens that no earlier round had.
        words = random.Random(round + time.time()).choices("river stone cloud lamp paper green seven walk north quiet".split(), k=1000)
        body = chat(" ".join(words), 4)
        cold, warm = server.first_token(body), server.first_token(body)
        ratios.append((cold / warm, cold, warm))
    ratio, cold, warm = sorted(ratios)[len(ratios) // 2]
    print(f"prefix: first token after {cold * 1000:.0f} ms, from the cache after {warm * 1000:.0f} ms, {ratio:.1f} times")


def overload(server):
    seconds, lock, stop = (5 if SHORT else 20), threading.Lock(), threading.Event()
    tokens = 16

    def phase(clients):
        good, refused, other, wait = [0], [], [0], time.perf_counter() + seconds
        stop.clear()

        def client(i):
            while time.perf_counter() < wait:
                started = time.perf_counter()
                status, _ = server.post(chat(f"Count from {i}.", tokens))
                took = time.perf_counter() - started
                with lock:
                    if status == 200:
                        good[0] += tokens
                    elif status == 429:
                        refused.append(took)
                    else:
                        other[0] += 1
                if status == 429:
                    time.sleep(0.2)

        threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
        started = time.perf_counter()
        [t.start() for t in threads]
        [t.join() for t in threads]
        return good[0] / (time.perf_counter() - started), sorted(refused), other[0]

    peak, _, _ = phase(16)
    crowded, refused, other = phase(160)
    p99 = refused[int(len(refused) * 0.99)] * 1000 if refused else 0
    print(f"overload: peak {peak:.1f} tokens/s, ten times as many clients {crowded:.1f} ({crowded / peak * 100:.0f} %), {len(refused)} refused, p99 {p99:.1f} ms, {other} other errors")


def leaving(server):
    count = 200 if SHORT else 5000
    body = json.dumps(chat("Tell a long story.", 200, stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    before = server.memory_kib()

    def leave(i):
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(head + body)
        time.sleep(random.Random(i).random() * 0.2)
        s.close()

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        list(pool.map(leave, range(count)))
    status = server.idle()
    grown = (server.memory_kib() - before) / 1024
    print(f"leaving: {count} clients left, pages in use {sum(m['pages']['in_use'] for m in status['models'])}, memory grew {grown:.0f} MiB")


def idle(server):
    count = 1000 if SHORT else 10000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20000), hard))
    before = server.memory_kib()
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
    time.sleep(1)
    times = []
    for _ in range(300):
        started = time.perf_counter()
        assert server.get("/readyz")[0] == 200
        times.append(time.perf_counter() - started)
    grown = (server.memory_kib() - before) / 1024
    print(f"idle: {count} connections, memory grew {grown:.0f} MiB, /readyz p99 {sorted(times)[-4] * 1000:.1f} ms")
    [s.close() for s in held]


def slow(server):
    """A header and a body that never end; both are closed, and nobody else waits."""
    header = socket.create_connection(("127.0.0.1", server.port))
    header.sendall(b"GET /livez HTTP/1.1\r\nHost:")
    body = socket.create_connection(("127.0.0.1", server.port))
    body.sendall(b"POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    started, told = time.perf_counter(), []
    for name, s in (("header", header), ("body", body)):
        s.settimeout(60)
        while s.recv(4096):
            pass
        told.append(f"{name} after {time.perf_counter() - started:.0f} s")
    print(f"slow clients closed: {', '.join(told)}")


def drain(server):
    """Sixteen streams under way when the server is asked to stop."""
    def stream(i):
        c = server.connection()
        c.request("POST", "/v1/chat/completions", json.dumps(chat(f"Tell story {i}.", 48, stream=True)), {"Content-Type": "application/json"})
        r = c.getresponse()
        first.release()
        return r.status, r.read().endswith(b"data: [DONE]\n\n")

    first = threading.Semaphore(0)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        streams = [pool.submit(stream, i) for i in range(16)]
        for _ in streams:
            first.acquire()
        server.process.terminate()
        done = [s.result() for s in streams]
    ended = server.process.wait(60)
    print(f"drain: {sum(d == (200, True) for d in done)} of 16 streams ended whole, exit {ended}")


def main():
    server = Server("--max-connections", "10300")
    try:
        for figure in (crowd, prefix, overload, leaving, idle, slow, drain):
            figure(server)
    finally:
        server.process.kill()


main()
