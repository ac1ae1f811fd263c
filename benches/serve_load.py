"""Load figures of `kun serve`, in one run: crowd, shared prefix, overload, leaving clients, idle connections.

usage: serve_load.py KUN [MODEL] [--short]
Starts its own server on this machine, asks it over loopback, prints one line a figure. Needs nothing but Python.
"""
import concurrent.futures
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
MODEL = next((a for a in sys.argv[2:] if not a.startswith("-")), "smollm2")
SHORT = "--short" in sys.argv


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

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0


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
    rounds = [(rate(1), rate(16)) for _ in range(1 if SHORT else 3)]
    one, sixteen = (statistics.median(r[i] for r in rounds) for i in (0, 1))
    print(f"crowd: 1 chat {one:.1f} tokens/s, 16 chats {sixteen:.1f} tokens/s, {sixteen / one:.2f} times")


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


def main():
    server = Server("--max-connections", "10300")
    for figure in (crowd, prefix, overload, leaving, idle):
        figure(server)
    server.stop()
    print("stopped cleanly")


main()
