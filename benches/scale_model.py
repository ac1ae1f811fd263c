#!/usr/bin/env python3
"""A job of 10^9 rows on 1,000 executors, simulated from constants that were measured on one machine.

    python3 benches/scale_model.py
    python3 benches/scale_model.py --executors 4000 --rows 4e9 --rows-per-second 120 --json

Every split is dealt out, worked on, lost with its executor or finished in a discrete-event simulation; planning, requests
and what client and scheduler do beside it are counted. docs/scale.md says where the constants come from
(`benches/scale_constants.py` measures them) and what follows. Only Python's own library is used.
"""

import argparse
import heapq
import json
import math
import random


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = p.add_argument
    add("--rows", type=float, default=1e9)
    add("--executors", type=int, default=1000)
    add("--workers", type=int, default=2, help="splits at once on an executor")
    add("--rows-per-second", type=float, default=500.0, help="of one executor, all workers together")
    add("--rows-per-file", type=float, default=500_000)
    add("--rows-per-split", type=float, default=50_000)
    add("--bytes-per-row", type=float, default=500)
    # Measured (docs/scale.md).
    add("--plan-requests-per-file", type=float, default=4, help="sequential, by the client")
    add("--plan-cpu-us-per-split", type=float, default=157)
    add("--plan-bytes-per-split", type=float, default=214)
    add("--message-bytes-per-task", type=float, default=700)
    add("--message-bytes-per-split", type=float, default=50)
    add("--most-tasks", type=int, default=32768, help="more splits than these are dealt out several at once")
    add("--model-megabytes", type=float, default=91, help="fetched once by every executor")
    add("--get-per-split", type=float, default=3.1, help="GET and HEAD")
    add("--put-per-split", type=float, default=2.2, help="PUT, LIST and COPY")
    add("--schedule-us-per-task", type=float, default=759, help="CPU time of the scheduler")
    add("--schedule-us-per-poll", type=float, default=100, help="CPU time of the scheduler for an idle question")
    add("--record-reads-at-once", type=int, default=64)
    add("--copies", type=int, default=3, help="how often the last splits are dealt out once more; 0: never")
    # Assumed.
    add("--request-ms", type=float, default=30)
    add("--spread", type=float, default=0.25, help="sigma of the logarithm of a split's time")
    add("--slow-share", type=float, default=0.01, help="executors that are slow")
    add("--slow-factor", type=float, default=4.0)
    add("--lost-per-hour", type=float, default=0.05, help="share of executors that die in an hour; a new one comes")
    add("--replace-seconds", type=float, default=180, help="until the new one works, models loaded")
    add("--notice-seconds", type=float, default=22.5, help="until a dead executor's splits are dealt out again")
    add("--checkpoint-seconds", type=float, default=60)
    add("--dollars-per-executor-hour", type=float, default=0.10)
    add("--dollars-per-million-get", type=float, default=0.40)
    add("--dollars-per-million-put", type=float, default=5.0)
    add("--seed", type=int, default=1)
    add("--json", action="store_true")
    return p.parse_args()


DIES, ENDS, JOINS, NOTICED, LOOK = range(5)


def simulate(a, splits):
    """Deals splits out until all are done: times of ends, work done twice, executors lost, copies made."""
    rng = random.Random(a.seed)
    mean = a.rows / splits / (a.rows_per_second / a.workers)
    slow = {e for e in range(a.executors) if rng.random() < a.slow_share}
    rate = a.lost_per_hour / 3600
    # A task is one split or a few; what is said of splits here holds for tasks.
    queue = list(range(splits))[::-1]
    need, took = {}, []  # seconds that a split takes on a plain executor, or what is left of it; seconds of those done
    events, incarnation, at_work, idle = [], [0] * a.executors, {}, []
    done, ended, redone, lost, copies = set(), [], 0.0, 0, 0
    scheduler_free, made, tail_since, serial = 0.0, 0, None, 0

    def push(time, kind, executor=0, slot=0, split=-1, born=0):
        nonlocal serial
        serial += 1
        heapq.heappush(events, (time, serial, kind, executor, slot, split, born))

    def deal(now, executor, slot):
        nonlocal scheduler_free
        split = queue.pop() if queue else None
        if split is None:
            idle.append((executor, slot, incarnation[executor]))
            return
        # One task after the other leaves the scheduler.
        scheduler_free = start = max(now, scheduler_free) + a.schedule_us_per_task / 1e6
        if split not in need:
            need[split] = mean * math.exp(rng.gauss(-(a.spread**2) / 2, a.spread))
        at_work[executor, slot] = (split, start)
        push(start + need[split] * pace(executor), ENDS, executor, slot, split, incarnation[executor])

    def pace(executor):
        return a.slow_factor if executor in slow else 1

    def wake(now):
        while idle and queue:
            executor, slot, born = idle.pop()
            if born == incarnation[executor]:
                deal(now, executor, slot)

    for executor in range(a.executors):
        if rate > 0:
            push(rng.expovariate(rate), DIES, executor)
        for slot in range(a.workers):
            deal(rng.random(), executor, slot)
    push(5, LOOK)
    while len(done) < splits:
        now, _, kind, executor, slot, split, born = heapq.heappop(events)
        if kind == ENDS:
            if born != incarnation[executor]:
                continue
            _, start = at_work.pop((executor, slot))
            if split not in done:
                done.add(split)
                ended.append(now)
                took.append(now - start)
            deal(now, executor, slot)
        elif kind == DIES:
            lost += 1
            incarnation[executor] += 1
            for slot in range(a.workers):
                if (executor, slot) not in at_work:
                    continue
                split, start = at_work.pop((executor, slot))
                worked = max(0.0, now - start)
                # What was logged is not done again.
                gone = min(worked, a.checkpoint_seconds * rng.random())
                need[split] = max(1.0, need[split] - (worked - gone) / pace(executor))
                redone += gone
                push(now + a.notice_seconds, NOTICED, split=split)
            push(now + a.replace_seconds, JOINS, executor, born=incarnation[executor])
            push(now + rng.expovariate(rate), DIES, executor)
        elif kind == JOINS:
            if born == incarnation[executor]:
                for slot in range(a.workers):
                    deal(now, executor, slot)
        elif kind == NOTICED:
            if split not in done:
                queue.append(split)
                wake(now)
        else:  # the client looks whether the last splits take too long
            push(now + 5, LOOK)
            left = splits - len(done)
            if left <= splits / 20 and made < a.copies and took:
                tail_since = now if tail_since is None else tail_since
                if now - tail_since > max(30, 1.5 * sorted(took)[len(took) // 2]) * 2**made:
                    made += 1
                    open_splits = [split for split, _ in at_work.values() if split not in done]
                    copies += len(open_splits)
                    queue.extend(open_splits)
                    wake(now)
    return ended, redone, lost, copies


def main():
    a = arguments()
    splits = math.ceil(a.rows / a.rows_per_split)
    tasks = min(splits, a.most_tasks)
    files = math.ceil(a.rows / a.rows_per_file)
    done, redone, lost, copies = simulate(a, tasks)
    work = done[-1]
    ideal = a.rows / (a.executors * a.rows_per_second)
    listing = math.ceil(files / 1000) * a.request_ms / 1000
    planning = (
        listing
        + files * a.plan_requests_per_file * a.request_ms / 1000
        + splits * a.plan_cpu_us_per_split / 1e6
    )
    # Every record is read once while the job runs, and all of them once more for the manifest.
    ending = splits / a.record_reads_at_once * a.request_ms / 1000 + 2 * math.ceil(splits / 1000) * a.request_ms / 1000
    total = planning + work + ending
    looks = work / max(0.25, 20 * 2 * math.ceil(splits / 1000) * a.request_ms / 1000)
    get = files * a.plan_requests_per_file + splits * a.get_per_split + 3 * splits + a.executors * 3
    put = splits * a.put_per_split + looks * 2 * math.ceil(splits / 1000)
    machines = a.executors * total / 3600 * a.dollars_per_executor_hour
    requests = get * a.dollars_per_million_get / 1e6 + put * a.dollars_per_million_put / 1e6
    nineteen = done[int(len(done) * 0.99) - 1]
    result = {
        "rows": a.rows,
        "executors": a.executors,
        "splits": splits,
        "files": files,
        "planning_s": planning,
        "work_s": work,
        "ending_s": ending,
        "total_s": total,
        "ideal_s": ideal,
        "efficiency": ideal / total,
        "last_percent_s": work - nineteen,
        "executors_lost": lost,
        "work_done_twice_s": redone,
        "splits_dealt_twice": copies,
        "plan_file_MB": splits * a.plan_bytes_per_split / 1e6,
        "plan_read_by_all_GB": splits * a.plan_bytes_per_split * a.executors / 1e9,
        "models_GB": a.executors * a.model_megabytes / 1e3,
        "tasks": tasks,
        "task_message_MB": (tasks * a.message_bytes_per_task + splits * a.message_bytes_per_split) / 1e6,
        "scheduler_busy_share": tasks * a.schedule_us_per_task / 1e6 / work,
        "scheduler_idle_cores": a.executors * a.schedule_us_per_poll / 1e6,
        "requests_per_s": (get + put) / total,
        "get_million": get / 1e6,
        "put_million": put / 1e6,
        "dollars_machines": machines,
        "dollars_requests": requests,
        "rows_per_dollar": a.rows / (machines + requests),
    }
    if a.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name:24} {value:,.3f}" if isinstance(value, float) and value < 100 else f"{name:24} {value:,.0f}")


if __name__ == "__main__":
    main()
