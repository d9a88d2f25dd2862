#!/usr/bin/env python3
"""A step of 20x on three nodes with the leader killed in the middle: the run of the README, and its picture.

  loadtest/docs/step.py [--bin DIR] [--rate 200] [--report FILE] [--svg loadtest/docs/step.svg]

Starts `tollgate demo --nodes 3 --processes`, makes 20 accounts of the tier free and 10 of enterprise, and runs a minute:
the base rate, 20 times as much from second 15 to 45, the leader killed at 30 and started again at 40, audited. Ends with the
run's exit code. The generator gets a raised priority where that is allowed, for it shares its cores with the nodes. The
picture is drawn of a run that is valid.
"""
import argparse, os, re, signal, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHARTS = [("Requests", "Requests a second, by the second in which they were due"), ("Latency from the intended send", "Latency from the intended send, ms")]
STYLE = (
    "text{font-family:system-ui,sans-serif}path{stroke-width:1.6}.grid{stroke:#8884}.tick,.legend,.event-text{font-size:11px;fill:#666}"
    ".event{stroke:#b3261e;stroke-dasharray:4 3}.event-text{fill:#b3261e}.title{font-size:14px;font-weight:600;fill:#333}"
)


def picture(report):
    """Two of the report's charts, one below the other."""
    parts = []
    for n, (label, title) in enumerate(CHARTS):
        found = re.search(rf'<svg (viewBox="0 0 900 240" role="img" aria-label="{label}")>(.*?)</svg>', report, re.S)
        top = n * 270
        parts.append(f'<text class="title" x="8" y="{top + 18}">{title}</text><svg x="0" y="{top + 26}" width="900" height="240" {found[1]}>{found[2]}</svg>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {len(CHARTS) * 270}" role="img"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def started(log, demo):
    """Where the nodes are, once all serve."""
    end = time.time() + 120
    while time.time() < end and demo.poll() is None:
        text = log.read_text()
        if "Ctrl-C ends it" in text:
            return text
        time.sleep(0.2)
    sys.exit(f"the demo did not start:\n{log.read_text()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=HERE.parent.parent / "target/release")
    parser.add_argument("--rate", type=int, default=200, help="requests a second before and after the step")
    parser.add_argument("--report", type=Path, help="keeps the report")
    parser.add_argument("--svg", type=Path, default=HERE / "step.svg")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="step-") as work:
        work = Path(work)
        log, keys, report = work / "demo.log", work / "keys.ndjson", args.report or work / "report.html"
        demo = subprocess.Popen([args.bin / "tollgate", "demo", "--nodes", "3", "--processes"], stdin=subprocess.DEVNULL, stdout=log.open("w"), stderr=subprocess.STDOUT)
        try:
            told = started(log, demo)
            data, admin = re.findall(r"data (http://\S+)", told), re.findall(r"admin (http://\S+)", told)
            control, token = re.search(r"control (http://\S+)", told)[1], re.search(r"admin token\s+(\S+)", told)[1]
            env, tool = {**os.environ, "TOLLGATE_ADMIN_TOKEN": token}, args.bin / "tollgate-loadtest"
            with keys.open("wb") as all_keys:
                for tier, count in (("free", 20), ("enterprise", 10)):
                    subprocess.run([tool, "keys", "make", work / tier, "--admin", admin[0], "--tier", tier, "--accounts", str(count)], check=True, env=env)
                    all_keys.write((work / tier).read_bytes())
            command = [tool, "run", *[f"{url}/v3/scan" for url in data], "--body", '{"payload":"card 4111 1111 1111 1111"}', "--keys", keys,
                       "--shape", f"hold {args.rate}/s 15s; step 20x 30s; hold 1x 15s", "--audit", "--admin", ",".join(admin), "--chaos-control", control,
                       "--chaos", "kill leader @30s; start node-1 @40s; start node-2 @40s; start node-3 @40s", "--threshold", "audit.lost==0", "--report", report]
            priority = ["nice", "-n", "-19"] if os.getuid() == 0 else []
            code = subprocess.run([*priority, *command], env=env, stdin=subprocess.DEVNULL).returncode
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait()
        if code == 0:
            args.svg.write_text(picture(report.read_text()))
    sys.exit(code)


if __name__ == "__main__":
    main()
