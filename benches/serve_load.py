"""Load figures of `kun serve`: crowd, shared prefix, overload, leaving clients, idle and slow ones, the end.

usage: serve_load.py KUN [MODEL] [--short] [--only NAME,NAME] [--llama-cpp PYTHON]
  KUN          the kun binary; every figure starts a server of its own and asks it over loopback
  MODEL        a model that chats [default: smollm2]
  --only       of: crowd prefix overload leaving idle slow drain
  --llama-cpp  a Python that has llama-cpp-python[server], whose server gets the same sixteen chats in turn

`overload`, `leaving`, `idle` and `drain` also run with `--null-model`, which costs no processor time: their figures are
then the server's alone. Needs nothing but Python; prints one line a figure.
"""
import asyncio
import concurrent.futures
import functools
import http.client
import json
import os
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


def option(name):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


LLAMA, ONLY = option("--llama-cpp"), option("--only")
MODEL = sys.argv[2] if len(sys.argv) > 2 and not sys.argv[2].startswith("-") else "smollm2"
print = functools.partial(print, flush=True)


class Server:
    """`kun serve` with MODEL, or with the null model."""

    def __init__(self, null=False, flags=()):
        models = ["--null-model"] if null else [MODEL]
        self.process = subprocess.Popen([KUN, "serve", *models, *flags, "--port", "0", "--max-connections", "10300"], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        while not self.is_ready():
            time.sleep(0.1)
        # A model given as a path goes by a shorter name.
        self.model = json.loads(self.get("/v1/models")[1])["data"][0]["id"]

    def is_ready(self):
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def chat(self, text, tokens, **more):
        return {"model": self.model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "ignore_eos": True, **more}

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

    def raw(self, body):
        """A request as bytes."""
        body = json.dumps(body).encode()
        return f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

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

    def memory_mib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def idle(self):
        """Waits until nothing runs and gives the pages in use, which must be none."""
        while True:
            status = json.loads(self.get("/v1/status")[1])
            pages = sum(m["pages"]["in_use"] for m in status["models"] if m["pages"])
            if status["in_flight"] == 0 and pages == 0:
                return pages
            time.sleep(0.05)


def round_trip():
    """Nanoseconds in which a line of memory goes from one thread to another and back."""
    limits = json.loads(subprocess.run([KUN, "doctor", "--json"], capture_output=True, text=True).stdout)["machine"]["limits"]
    return limits["round_trip_ns"] or 0


def crowd():
    """One chat, then sixteen at once; with --llama-cpp, sixteen by its server too, in turns."""
    tokens = 32 if SHORT else 96

    def rate(server, clients):
        started = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            done = list(pool.map(lambda i: server.post(server.chat(f"Tell story number {i}.", tokens)), range(clients)))
        assert all(status == 200 for status, _ in done)
        return clients * tokens / (time.perf_counter() - started)

    # A small cache that has been in use: a virtual machine may hand out memory that was never touched at half a gigabyte a
    # second, a tenth of the time of such short chats.
    with Server(flags=["--context", "1024"]) as server:
        rate(server, 1)
        for _ in range(0 if SHORT else 7):
            rate(server, 16)
        # Many, as one chat is bound by memory, whose rate swings with what else the host does. A host may move a virtual
        # machine's cores, too: those that share a cache pass rows to each other several times sooner.
        rounds = [(round_trip(), rate(server, 1), rate(server, 16)) for _ in range(1 if SHORT else 20)]
        for where, trips in (("share a cache", range(150)), ("share none", range(150, 10**9))):
            there = [r for r in rounds if int(r[0]) in trips]
            if there:
                trip, one, sixteen = (statistics.median(r[i] for r in there) for i in (0, 1, 2))
                print(f"crowd, {len(there)} rounds while cores {where} ({trip:.0f} ns to and fro): 1 chat {one:.1f} tokens/s, 16 chats {sixteen:.1f} tokens/s, {sixteen / one:.2f} times")
        if LLAMA:
            beside_llama_cpp(server, lambda: rate(server, 16), tokens)


def beside_llama_cpp(server, ours, tokens):
    """The same sixteen chats by llama.cpp's server, rounds in turn."""
    path = subprocess.run([KUN, "pull", MODEL, "--progress", "none"], capture_output=True, text=True, check=True).stdout.strip()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(len(os.sched_getaffinity(0)))
    flags = ["--model", path, "--port", str(port), "--n_ctx", "8192", "--n_threads", threads]
    process = subprocess.Popen([LLAMA, "-m", "llama_cpp.server", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def one(i):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        body = server.chat(f"Tell story number {i}.", tokens)
        # It has no `ignore_eos`; what it wrote is counted.
        del body["ignore_eos"]
        c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
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


def prefix():
    """About a thousand tokens that no earlier round had, asked twice."""
    rounds = []
    with Server() as server:
        for number in range(1 if SHORT else 7):
            words = random.Random(number + time.time()).choices("river stone cloud lamp paper green seven walk north quiet".split(), k=1000)
            body = server.chat(" ".join(words), 4)
            cold, warm = server.first_token(body), server.first_token(body)
            rounds.append((cold / warm, cold, warm))
    ratio, cold, warm = sorted(rounds)[len(rounds) // 2]
    print(f"prefix: first token after {cold * 1000:.0f} ms, from the cache after {warm * 1000:.0f} ms, {ratio:.1f} times")


async def ask(pool, port, request):
    """One request over a connection of the pool; gives status and body."""
    # The server closes connections that have been silent for ten seconds.
    while pool and time.perf_counter() - pool[-1][2] > 5:
        pool.pop()[1].close()
    reader, writer, _ = pool.pop() if pool else (*await asyncio.open_connection("127.0.0.1", port), 0)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower()).group(1))
    body = await reader.readexactly(length)
    pool.append((reader, writer, time.perf_counter()))
    return int(head[9:12]), body


def overload(null):
    """Sixteen clients that always ask, then ten times as many requests a second as they were answered, come what may."""
    seconds, tokens = (5 if SHORT else 20), 64

    async def phases(server):
        request = server.raw(server.chat("Count from one.", tokens))
        pool = []

        async def closed(until):
            answered = 0
            while time.perf_counter() < until:
                status, _ = await ask(pool, server.port, request)
                assert status == 200
                answered += 1
            return answered

        await asyncio.gather(*(closed(time.perf_counter() + 2) for _ in range(16)))
        started = time.perf_counter()
        counts = await asyncio.gather(*(closed(started + seconds) for _ in range(16)))
        peak = sum(counts) / (time.perf_counter() - started)

        good, refused, late, other = [], [], [], []

        async def one():
            asked = time.perf_counter()
            status, body = await ask(pool, server.port, request)
            now = time.perf_counter()
            if status == 200:
                good.append(now)
            elif status == 429:
                refused.append((now - asked) * 1000)
                late.extend(["x"] if b"waited" in body else [])
            else:
                other.append(status)

        tasks, started, sent = set(), time.perf_counter(), 0
        # Slots and queue fill first: twice the time of an answer is left out.
        ramp = 2 * 16 / peak
        until = max(seconds, 4 * ramp)
        while (now := time.perf_counter() - started) < until:
            while sent < now * peak * 10:
                task = asyncio.create_task(one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(0.002)
        crowded = sum(started + ramp <= t < started + until for t in good) / (until - ramp)
        await asyncio.gather(*tasks)
        refused.sort()
        at = lambda share: refused[int(len(refused) * share)] if refused else 0
        print(f"overload ({server.model}): peak {peak * tokens:.0f} tokens/s; {sent / until:.0f} requests/s offered: {crowded * tokens:.0f} tokens/s ({crowded / peak * 100:.0f} %), {len(refused)} refused in {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, {len(late)} after waiting, {len(other)} other errors")

    with Server(null) as server:
        asyncio.run(phases(server))


def leaving(null):
    """Clients that leave at a random moment: in the queue, in the prompt, in the answer."""
    count = 300 if SHORT else 5000
    with Server(null) as server:
        streams = [server.raw(server.chat("Tell a long story.", 200, stream=stream)) for stream in (True, False)]

        def leave(i):
            with socket.create_connection(("127.0.0.1", server.port)) as s:
                s.sendall(streams[i % 2])
                time.sleep(random.Random(i).random() * 0.2)

        def round(first, last):
            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                list(pool.map(leave, range(first, last)))
            return server.idle(), server.memory_mib(), server.open_files()

        # The first ones grow buffers that stay.
        _, before, files = round(0, count // 5)
        pages, after, files_after = round(count // 5, count)
        print(f"leaving ({server.model}): {count} clients left, {pages} pages in use, open files {files} -> {files_after}, memory {before:.0f} -> {after:.0f} MiB")


def idle(null):
    """Connections that say nothing."""
    count = 1000 if SHORT else 10000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20000), hard))
    with Server(null) as server:
        before = server.memory_mib()
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
        time.sleep(1)
        times = []
        for _ in range(500):
            started = time.perf_counter()
            assert server.get("/readyz")[0] == 200
            times.append(time.perf_counter() - started)
        silent = server.memory_mib() - before
        # The same after each has asked once and keeps the connection.
        for s in held:
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for s in held:
            assert b"200 OK" in s.recv(4096)
        kept = server.memory_mib() - before
        for _ in range(500):
            started = time.perf_counter()
            assert server.get("/readyz")[0] == 200
            times.append(time.perf_counter() - started)
        p99 = sorted(times)[int(len(times) * 0.99)]
        print(f"idle ({server.model}): {count} connections, memory grew {silent:.0f} MiB, {kept:.0f} MiB once each had asked, /readyz p99 {p99 * 1000:.1f} ms")
        [s.close() for s in held]


def slow(null):
    """A header and a body that never end; both are closed."""
    with Server(null) as server:
        header = socket.create_connection(("127.0.0.1", server.port))
        header.sendall(b"GET /livez HTTP/1.1\r\nHost:")
        body = socket.create_connection(("127.0.0.1", server.port))
        body.sendall(b"POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        started, told = time.perf_counter(), []
        for name, s in (("header", header), ("body", body)):
            s.settimeout(90)
            while s.recv(4096):
                pass
            told.append(f"{name} after {time.perf_counter() - started:.0f} s")
        print(f"slow clients closed: {', '.join(told)}")


def drain(null):
    """Sixteen streams under way, and more in the queue, when the server is asked to stop."""
    with Server(null) as server:
        first = threading.Semaphore(0)

        def stream(i):
            c = server.connection()
            c.request("POST", "/v1/chat/completions", json.dumps(server.chat(f"Tell story {i}.", 48, stream=True)), {"Content-Type": "application/json"})
            r = c.getresponse()
            first.release()
            text = r.read()
            return "whole" if text.endswith(b"data: [DONE]\n\n") else "told" if b'"error"' in text[-400:] else "cut"

        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            streams = [pool.submit(stream, i) for i in range(32)]
            for _ in range(16):
                first.acquire()
            server.process.terminate()
            done = [s.result() for s in streams]
        ended = server.process.wait(60)
        print(f"drain ({server.model}): of {len(done)} streams {done.count('whole')} ended whole, {done.count('told')} were told that the time is over, {done.count('cut')} were cut; exit {ended}")


FIGURES = {
    "crowd": [crowd],
    "prefix": [prefix],
    "overload": [lambda: overload(True), lambda: overload(False)],
    "leaving": [lambda: leaving(True), lambda: leaving(False)],
    "idle": [lambda: idle(True)],
    "slow": [lambda: slow(True)],
    "drain": [lambda: drain(True), lambda: drain(False)],
}

for name in ONLY.split(",") if ONLY else FIGURES:
    for figure in FIGURES[name]:
        figure()
