#!/usr/bin/env python3
"""Load generators side by side: the same instant server, one core each, in one run, on this machine.

  loadtest/peers/generators.py [--bin DIR] [--seconds 6] [--rounds 3] [--rates 15000,30000] [--out FILE]

The server (nginx, `return 200`) is pinned to core 1, every generator to core 0. Two kinds of points: a fixed rate, and as
fast as 64 connections go (wrk has that alone, tollgate-loadtest does not have it). CPU is user and system time of the
generator over the requests that were answered; memory is the most that it held. A fixed rate means something else to each:
tollgate-loadtest and vegeta send on a schedule that waits for no answer; oha (asked with --latency-correction) and hey share
the rate out among 64 clients of which each waits for its answer. Latency counts from the intended send with tollgate-loadtest
and oha, from the actual one with hey, vegeta and wrk. A generator that is missing is reported as missing.
Needs: nginx, taskset and a release build of tollgate-loadtest in --bin; for the others Debian's wrk and hey, oha
(`cargo install oha --locked`), vegeta.
"""
import argparse, json, os, re, shutil, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import peers
from peers import LOAD_CORE, SIDE_CORE, configured, find, free_port, milliseconds, missing, nginx, started, status, table, until

CONNECTIONS = 64


def pinned(command, out):
    """Runs it on the generators' core; its CPU time in us and its most memory in MB."""
    memory = 0
    with open(out, "wb") as file:
        child = subprocess.Popen(["taskset", "-c", SIDE_CORE, *map(str, command)], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        while True:
            # What wait4 tells of the memory is that of this script, before it became the generator.
            if found := re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{child.pid}/status").read_text()):
                memory = int(found.group(1)) / 1024
            pid, code, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.1)
        child.returncode = os.waitstatus_to_exitcode(code)
    return (used.ru_utime + used.ru_stime) * 1e6, memory


def ours(tool, url, rate, seconds, work):
    out = work / "ours.json"
    cpu, memory = pinned([tool, "run", url, "--rate", f"{rate}/s", "--seconds", seconds, "--quiet", "--out", out], work / "ours.txt")
    result = json.loads(out.read_text())
    ok = result["classes"].get("ok", {"corrected": {"count": 0}})["corrected"]["count"]
    lag = f"lag p99 {result['lag']['p99']:.2f} ms" + (", **INVALID**" if result["verdict"] == "invalid" else "")
    return {"count": ok, "rate": result["rate"], "p50": result["corrected"]["p50"], "p99": result["corrected"]["p99"], "cpu": cpu, "memory": memory, "note": lag}


def oha(tool, url, rate, seconds, work):
    out = work / "oha.json"
    command = [tool, "--no-tui", "--output-format", "json", "-c", CONNECTIONS, "-z", f"{seconds}s"]
    cpu, memory = pinned([*command, *(["-q", rate, "--latency-correction"] if rate else []), url], out)
    text = out.read_text()
    result = json.loads(text[text.index("{"):])
    ok = result["statusCodeDistribution"].get("200", 0)
    latency = result["latencyPercentiles"]
    return {"count": ok, "rate": ok / result["summary"]["total"], "p50": latency["p50"] * 1e3, "p99": latency["p99"] * 1e3, "cpu": cpu, "memory": memory, "note": ""}


def hey(tool, url, rate, seconds, work):
    out = work / "hey.txt"
    command = [tool, "-cpus", "1", "-c", CONNECTIONS, "-z", f"{seconds}s"]
    cpu, memory = pinned([*command, *(["-q", rate / CONNECTIONS] if rate else []), url], out)
    text = out.read_text()
    of = lambda pattern: float(re.search(pattern, text).group(1))
    ok = int(of(r"\[200\]\s+(\d+) responses"))
    return {"count": ok, "rate": ok / of(r"Total:\s+([\d.]+) secs"), "p50": of(r"50% in ([\d.]+) secs") * 1e3, "p99": of(r"99% in ([\d.]+) secs") * 1e3, "cpu": cpu, "memory": memory, "note": ""}


def vegeta(tool, url, rate, seconds, work):
    targets, out = work / "vegeta.targets", work / "vegeta.bin"
    targets.write_text(f"GET {url}\n")
    pace = ["-rate", f"{rate}/s"] if rate else ["-rate", "0", "-max-workers", CONNECTIONS]
    cpu, memory = pinned([tool, "attack", "-targets", targets, *pace, "-duration", f"{seconds}s", "-output", out], work / "vegeta.txt")
    result = json.loads(subprocess.run([tool, "report", "-type", "json", out], check=True, capture_output=True).stdout)
    ok, latency = result["status_codes"].get("200", 0), result["latencies"]
    return {"count": ok, "rate": result["throughput"], "p50": latency["50th"] / 1e6, "p99": latency["99th"] / 1e6, "cpu": cpu, "memory": memory, "note": ""}


def wrk(tool, url, rate, seconds, work):
    out = work / "wrk.txt"
    cpu, memory = pinned([tool, "--latency", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url], out)
    text = out.read_text()
    of = lambda pattern: re.search(pattern, text, re.M).group(1)
    return {"count": int(of(r"(\d+) requests in")), "rate": float(of(r"Requests/sec:\s+([\d.]+)")), "p50": milliseconds(of(r"^\s+50%\s+(\S+)")),
            "p99": milliseconds(of(r"^\s+99%\s+(\S+)")), "cpu": cpu, "memory": memory, "note": "" if "Non-2xx" not in text and "Socket errors" not in text else "errors"}


GENERATORS = {"tollgate-loadtest": (ours, "rate"), "oha": (oha, "rate, closed"), "hey": (hey, "rate, closed"), "vegeta": (vegeta, "rate, closed"), "wrk": (wrk, "closed")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=peers.HERE.parent.parent / "target/release")
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", default="15000,30000")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    tools = {name: find(name, args.bin / name) for name in GENERATORS}
    if lacking := [name for name in ("nginx", "taskset") if not shutil.which(name)] + ([] if tools["tollgate-loadtest"] else ["tollgate-loadtest"]):
        sys.exit(f"missing: {', '.join(lacking)}; nothing was measured")
    points = [(f"{int(rate):,}/s", int(rate)) for rate in args.rates.split(",")] + [(f"{CONNECTIONS} connections", None)]
    work = Path(tempfile.mkdtemp(prefix="generators-"))
    seen = {}
    try:
        addr = f"127.0.0.1:{free_port()}"
        nginx(shutil.which("nginx"), configured("upstream.conf", work / "upstream", addr=addr), work / "upstream", LOAD_CORE)
        until("the server", lambda: status(f"http://{addr}/", "") == 200)
        for round_ in range(args.rounds):
            for point, rate in points:
                names = [name for name, (_, does) in GENERATORS.items() if tools[name] and ("rate" if rate else "closed") in does]
                for name in names if round_ % 2 == 0 else reversed(names):
                    run = GENERATORS[name][0](tools[name], f"http://{addr}/", rate, args.seconds, work)
                    run["cpu"] /= max(run["count"], 1)
                    print(f"  round {round_ + 1} {point:15} {name:18} {run['rate']:.0f}/s {run['cpu']:.1f} us p50 {run['p50']:.2f} p99 {run['p99']:.2f} ms {run['memory']:.0f} MB {run['note']}", file=sys.stderr)
                    seen.setdefault((point, name), []).append(run)
    finally:
        for process in reversed(started):
            process.stop()
        shutil.rmtree(work, ignore_errors=True)
    rows = []
    for point, rate in points:
        for name, (_, does) in GENERATORS.items():
            if ("rate" if rate else "closed") not in does:
                continue
            runs = seen.get((point, name))
            if not runs:
                rows.append([point, name, "missing", "", "", "", "", ""])
                continue
            of = lambda field: statistics.median(run[field] for run in runs)
            # Of all rounds, so that none is left out that went wrong.
            notes = "; ".join(dict.fromkeys(run["note"] for run in runs if run["note"]))
            rows.append([point, name, f"{of('rate'):,.0f}", f"{of('cpu'):.1f}", f"{of('p50'):.2f}", f"{of('p99'):.2f}", f"{of('memory'):.0f}", notes])
    text = table(["load", "generator", "reached/s", "CPU us a request", "p50 ms", "p99 ms", "MB", "of itself, each round"], rows)
    if missing:
        text += f"\nMissing on this machine: {', '.join(dict.fromkeys(missing))}.\n"
    if args.out:
        args.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
