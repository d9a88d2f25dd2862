"""The rendered pods as processes: their commands, their environment and nothing else, as their user, with their probes kept by a
kubelet of a few lines. Names of pods become addresses of loopback, mounted volumes become directories.

What is proven is that what the chart says is enough for the nodes to form a cluster, to be restarted one by one under load, to
be upgraded, scaled out and in, and to come back with an empty volume, without a lost row and without a request that fails for
a client that repeats what was not executed.
"""

import collections
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import yaml

import chart

RELEASE, NAMESPACE = "tg", "api"
# A node that runs alone on an idle machine needs a second or two; this is for busy ones.
PATIENCE_SECONDS = 180
# A client repeats a refused request for so long.
REPEAT_SECONDS = 30
CLIENTS = 8
PAUSE_SECONDS = 0.02
NONROOT = 65532
# Listeners with a certificate, by the names of the chart's values.
PLACES = {"peers": 8082, "admin": 8081, "data": 8080}


def run(tools, binary):
    passed = skipped = 0
    settings = subprocess.run([str(binary), "serve", "--help"], capture_output=True, text=True, check=True).stdout
    for proof in (Cluster.prove, Cluster.prove_tls):
        if proof is Cluster.prove_tls and not (shutil.which("openssl") and "--peer-tls-cert" in settings):
            print("skipped  the same with TLS (openssl, or a binary with TLS, is not there)")
            skipped += 1
            continue
        with tempfile.TemporaryDirectory(prefix="tollgate-pods-") as work:
            os.chmod(work, 0o755)
            shutil.copy(binary, f"{work}/tollgate")
            os.chmod(f"{work}/tollgate", 0o755)
            cluster = Cluster(tools, Path(work))
            try:
                proof(cluster)
            except Exception as error:
                cluster.show()
                print(f"FAILED   {type(error).__name__}: {error}")
                if not isinstance(error, chart.Failed):
                    raise
                return 1
            finally:
                cluster.end()
            passed += cluster.passed
    print(f"pods: {passed} passed, 0 failed, {skipped} skipped")
    return 0


def eventually(what, condition, seconds=PATIENCE_SECONDS):
    """Waits until a condition holds; its last value is returned."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise chart.Failed(f"{what}: not after {seconds} s")
        time.sleep(0.1)


class Cluster:
    """A namespace: what is rendered, the pods that run, the volumes that stay."""

    def __init__(self, tools, work):
        self.tools, self.work, self.passed = tools, work, 0
        # A network of its own for each run: 127.x.y.0/24.
        self.net = f"127.{100 + os.getpid() // 250 % 100}.{os.getpid() % 250 + 1}"
        self.pods, self.objects, self.template = {}, {}, {}
        self.upstream = Upstream(f"{self.net}.2")
        self.values, self.trust = [], None
        token = subprocess.run([str(work / "tollgate"), "token", "generate"], capture_output=True, text=True, check=True).stdout
        self.token = token.strip()
        self.secret("tollgate-admin", {"token": token})

    # --- The proof ---

    def prove(self):
        self.render()
        self.step("three pods form a cluster, all at once", self.form)
        self.step("helm test's script makes a key, calls and finds the row", self.helm_test)
        self.step("the kernel would write no core dump of a pod, and no other process of its user can read it", self.sealed)
        with Load(self) as load:
            self.step("a pod gets no setting that it does not know, and every metric of the rules and dashboards is there", self.metrics)
            self.step("rolling restart in the StatefulSet's order", lambda: self.roll(load))
            self.step("upgrade with changed settings", lambda: self.upgrade(load))
            self.step("a pod with an empty volume takes its own place", lambda: self.empty_volume(load))
            self.step("scaled out to five, who all vote", lambda: self.scale_out(load))
            self.step("scaled in to three, as the README says", lambda: self.scale_in(load))
            self.step("a gateway comes, does not vote, serves; comes again with an empty disk", lambda: self.gateway(load))
        self.step("each answered request has its row, once", lambda: self.audit(load))
        self.step("helm test again", self.helm_test)
        self.step("all pods end by themselves when they are told to", self.stop_all)

    def prove_tls(self):
        self.issue()
        self.values = ["--set", "tls.mode=existingSecrets,tls.data.enabled=true",
                       "--set", ",".join(f"tls.{place}.existingSecret=tls-{place}" for place in PLACES)]
        self.render()
        self.trust = ssl.create_default_context(cafile=str(self.work / "ca.crt"))
        self.step("TLS on all listeners: three pods form a cluster, all at once", self.form)
        self.step("TLS: helm test's script makes a key, calls and finds the row", self.helm_test)
        self.step("TLS: a peer without a certificate of the authority is refused", self.strangers)
        with Load(self) as load:
            self.step("TLS: certificates change under load", lambda: self.rotate(load))
            self.step("TLS: every metric of the rules and dashboards is there", self.metrics)
            self.step("TLS: rolling restart in the StatefulSet's order", lambda: self.roll(load))
        self.step("TLS: each answered request has its row, once", lambda: self.audit(load))
        self.step("TLS: all pods end by themselves when they are told to", self.stop_all)

    def issue(self):
        """A certificate for each listener, by one authority; anew at each call."""
        def openssl(*arguments):
            done = subprocess.run(["openssl", *arguments], cwd=self.work, capture_output=True, text=True)
            chart.demand(done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stderr}")

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        for name in ("ca", "other-ca"):
            if not (self.work / f"{name}.crt").exists():
                openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "30", "-subj", f"/CN={name}",
                        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        # Pods have addresses here instead of names.
        names = ",".join(f"IP:{self.net}.{number}" for number in (*range(10, 16), 110))
        (self.work / "leaf.ext").write_text(f"subjectAltName={names},DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
        for place, authority in [(place, "ca") for place in PLACES] + [("stranger", "other-ca")]:
            openssl("req", "-new", *key, "-keyout", f"{place}.key", "-out", f"{place}.csr", "-subj", f"/CN={place}")
            openssl("x509", "-req", "-in", f"{place}.csr", "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial",
                    "-out", f"{place}.crt", "-days", "30", "-extfile", "leaf.ext")
            self.secret(f"tls-{place}", {"tls.crt": (self.work / f"{place}.crt").read_text(),
                                         "tls.key": (self.work / f"{place}.key").read_text(),
                                         "ca.crt": (self.work / "ca.crt").read_text()})

    def shown(self, pod, port):
        """The certificate that a listener shows, DER."""
        context = ssl.create_default_context(cafile=str(self.work / "ca.crt"))
        context.load_cert_chain(self.work / "peers.crt", self.work / "peers.key")
        with socket.create_connection((pod.address, port), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname=pod.address) as stream:
                return stream.getpeercert(binary_form=True)

    def strangers(self):
        for pod in self.ready():
            for chain in (None, "stranger"):
                context = ssl.create_default_context(cafile=str(self.work / "ca.crt"))
                if chain:
                    context.load_cert_chain(self.work / f"{chain}.crt", self.work / f"{chain}.key")
                try:
                    with socket.create_connection((pod.address, 8082), timeout=20) as plain:
                        with context.wrap_socket(plain, server_hostname=pod.address) as stream:
                            # In TLS 1.3 the refusal comes after the client's part of the handshake.
                            stream.send(b"tollgate")
                            chart.demand(not stream.recv(1), f"{pod.name} talks with a peer that showed {chain}")
                except (ssl.SSLError, ConnectionError):
                    pass
            self.shown(pod, 8082)

    def rotate(self, load):
        before, running = load.count(), {pod.name: pod.process.pid for pod in self.pods.values()}
        self.issue()
        for place, port in PLACES.items():
            now = ssl.PEM_cert_to_DER_cert((self.work / f"{place}.crt").read_text())
            for pod in self.pods.values():
                eventually(f"{pod.name} shows its new certificate to {place}", lambda: self.shown(pod, port) == now)
        time.sleep(2)
        self.all_ready()
        chart.demand(running == {pod.name: pod.process.pid for pod in self.pods.values() if pod.process.poll() is None}, "a node was restarted")
        return load.since(before)

    def step(self, headline, what):
        start = time.monotonic()
        said = what()
        self.passed += 1
        print(f"ok       {headline} ({time.monotonic() - start:.0f} s{'; ' + said if said else ''})", flush=True)

    def form(self):
        for pod in self.wanted("tg-tollgate"):
            pod.start()
        self.all_ready()
        nodes = self.api("GET", "/v1/cluster")["nodes"]
        chart.demand(sorted(node["name"] for node in nodes) == sorted(self.pods), f"the cluster has {nodes}")
        chart.demand(all(node["voter"] for node in nodes), f"not all vote: {nodes}")

    def helm_test(self):
        pod = next(one for one in self.objects.values() if one["kind"] == "Pod")
        container = pod["spec"]["containers"][0]
        env = chart.environment_of(container)
        ready = self.ready()
        for name, service, port in (("ADMIN_URL", "tg-tollgate-admin", 8081), ("DATA_URL", "tg-tollgate", 8080)):
            # What kube-proxy does: the Service's port leads to a ready pod's.
            of = self.objects[("Service", service)]["spec"]["ports"][0]
            url = f"{self.scheme(port)}://{service}.{NAMESPACE}.svc:{of['port']}"
            chart.demand(env[name] == url, f"{name} is {env[name]}, the Service is at {url}")
            target = self.container(of["targetPort"])
            chart.demand(target == port, f"{service} leads to {target}")
            env[name] = f"{self.scheme(port)}://{ready[0].address}:{target}"
        for name, value in env.items():
            if value.startswith("/"):
                env[name] = self.mounted(container, pod["spec"], value, None)
        done = subprocess.run(container["command"], env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, timeout=120)
        chart.demand(done.returncode == 0, f"helm test: {done.stdout}{done.stderr}")
        for path in ("/v1/accounts/helm-test", "/v1/tiers/helm-test"):
            chart.demand(ready[0].call("GET", path, 8081, token=self.token)[0] == 404, f"helm test leaves {path}")
        return done.stderr.strip()

    def metrics(self):
        names, missing = self.metrics_now()
        # Those of an upstream are there when it was called.
        for _ in range(100):
            if not missing:
                break
            time.sleep(0.1)
            names, missing = self.metrics_now()
        chart.demand(not missing, f"/metrics has no {sorted(missing)} among its {len(names)} metrics")
        return f"{len(names)} metrics"

    def metrics_now(self):
        names = set(re.findall(r"(?m)^# TYPE (\w+) ", self.ready()[0].get("/metrics", 8081)[1]))
        recorded = {rule["record"] for group in chart.rules() for rule in group["rules"] if "record" in rule}
        # A name in the rules that no node says is a name that the source has and nobody registers.
        return names, {name for name in chart.metrics_named() if chart.base_of(name, names) not in names and name not in recorded
                       and (self.trust or "_tls_" not in name)}

    def sealed(self):
        if os.getuid() != 0:
            return "not looked at: pods run as the test's own user"
        for pod in self.pods.values():
            # What a process that is not dumpable has below /proc is root's.
            owner = os.stat(f"/proc/{pod.process.pid}/environ").st_uid
            chart.demand(owner == 0 and pod.spec["securityContext"]["runAsUser"] != 0, f"{pod.name}: its memory is user {owner}'s to read")

    def roll(self, load, below=None):
        """As the StatefulSet's controller: the highest ordinal first, the next when it was ready for minReadySeconds."""
        before = load.count()
        wait = self.objects[("StatefulSet", "tg-tollgate")]["spec"]["minReadySeconds"]
        for pod in sorted(self.pods.values(), key=lambda pod: -pod.ordinal):
            if below is not None and pod.ordinal >= below:
                continue
            pod.stop_gracefully()
            again = self.wanted(pod.set)[pod.ordinal]
            again.start()
            eventually(f"{pod.name} is ready again", lambda: again.ready or again.check())
            time.sleep(wait)
            self.all_ready()
        return load.since(before)

    def upgrade(self, load):
        self.render("--set", "settings.commit_deadline_ms=2500,settings.log_format=json")
        said = self.roll(load)
        for pod in self.pods.values():
            last = pod.log.read_text().splitlines()[-1]
            chart.demand(last.startswith("{"), f"the new settings are not in force: {pod.name} logs {last!r}")
        return said

    def empty_volume(self, load):
        before = load.count()
        old = {node["name"]: node["id"] for node in self.api("GET", "/v1/cluster")["nodes"]}
        pod = self.pods["tg-tollgate-1"]
        pod.kill()
        shutil.rmtree(pod.volume)
        again = self.wanted(pod.set)[pod.ordinal]
        again.start()
        eventually(f"{pod.name} is ready with an empty volume", lambda: again.ready or again.check())

        def replaced():
            nodes = {node["name"]: node for node in self.api("GET", "/v1/cluster")["nodes"]}
            return set(nodes) == set(old) and nodes[pod.name]["id"] != old[pod.name] and nodes[pod.name]["voter"]

        eventually(f"{pod.name} has taken its own place as a voter", replaced)
        return load.since(before)

    def scale_out(self, load):
        """The controller makes the pods that are missing, then rolls the others, whose environment names them now."""
        before = load.count()
        self.render("--set", "cluster.replicas=5")
        more = self.wanted("tg-tollgate")[3:]
        for pod in more:
            pod.start()
        for pod in more:
            eventually(f"{pod.name} is ready", lambda: pod.ready or pod.check())
        self.roll(load, below=3)
        eventually("five vote", lambda: self.voters() == sorted(pod.name for pod in self.pods.values()))
        return load.since(before)

    def scale_in(self, load):
        before = load.count()
        leaving = [self.pods[f"tg-tollgate-{ordinal}"] for ordinal in (4, 3)]
        for pod in leaving:
            self.api("DELETE", f"/v1/cluster/nodes/{pod.name}")
        staying = sorted(set(self.pods) - {pod.name for pod in leaving})
        eventually("three vote", lambda: self.voters() == staying)
        self.render("--set", "cluster.replicas=3")
        for pod in leaving:
            pod.stopping = True
            pod.process.send_signal(signal.SIGTERM)
        for pod in leaving:
            pod.wait_for_end()
            shutil.rmtree(pod.volume)
            del self.pods[pod.name]
        self.roll(load)
        nodes = self.api("GET", "/v1/cluster")["nodes"]
        chart.demand(sorted(node["name"] for node in nodes) == staying, f"the cluster has {nodes}")
        return load.since(before)

    def voters(self):
        return sorted(node["name"] for node in self.api("GET", "/v1/cluster")["nodes"] if node["voter"])

    def gateway(self, load):
        before = load.count()
        self.render("--set", "gateways.replicas=1")
        ids, own = set(), []
        for _ in range(2):
            pod = self.wanted("tg-tollgate-gateway")[0]
            pod.start()
            eventually(f"{pod.name} is ready", lambda: pod.ready or pod.check())

            def alone():
                nodes = self.api("GET", "/v1/cluster")["nodes"]
                own[:] = [node for node in nodes if node["name"] == pod.name]
                return len(own) == 1

            # Its last life is removed once its leases have run out.
            eventually(f"{pod.name} is one node", alone)
            chart.demand(not own[0]["voter"], f"{pod.name} is there as {own}")
            ids.add(own[0]["id"])
            status, _ = pod.call("GET", "/scan", 8080, headers={"x-api-key": load.key})
            chart.demand(status == 200, f"{pod.name} answers {status}")
            pod.stop_gracefully()
            shutil.rmtree(pod.volume)
            del self.pods[pod.name]
        chart.demand(len(ids) == 2, "a node with an empty disk has its predecessor's identity")
        return load.since(before)

    def audit(self, load):
        load.demand_clean()
        rows, cursor = {}, ""
        while cursor is not None:
            page = self.api("GET", f"/v1/requests?account=load&limit=1000{cursor and '&cursor=' + cursor}")
            for row in page["data"]:
                chart.demand(row["request_id"] not in rows, f"two rows of {row['request_id']}")
                rows[row["request_id"]] = row
            cursor = page["next_cursor"]
        lost = set(load.answered) - set(rows)
        chart.demand(not lost, f"{len(lost)} of {len(load.answered)} answered requests have no row: {sorted(lost)[:3]}")
        wrong = [one for one, status in load.answered.items() if rows[one]["status"] != status]
        chart.demand(not wrong, f"rows have another status: {wrong[:3]}")
        return f"{len(load.answered)} answers, {len(rows)} rows"

    def stop_all(self):
        some = list(self.pods.values())
        for pod in some:
            pod.stopping = True
            pod.process.send_signal(signal.SIGTERM)
        for pod in some:
            pod.wait_for_end()

    # --- Kubernetes, as far as it is needed ---

    def render(self, *values):
        scenario = str(chart.CHART / "scenarios/dev.yaml")
        values = (*self.values, *values)
        done = subprocess.run([str(self.tools.helms[-1]), "template", RELEASE, str(chart.CHART), "--namespace", NAMESPACE,
                               "-f", scenario, *values], capture_output=True, text=True)
        chart.demand(done.returncode == 0, done.stderr)
        self.objects = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout) if one}

    def wanted(self, name):
        """A StatefulSet's pods by ordinal, as it is rendered now; none of them runs yet."""
        spec = self.objects[("StatefulSet", name)]["spec"]
        return [Pod(self, name, ordinal, spec["template"]["spec"]) for ordinal in range(spec["replicas"])]

    def secret(self, name, files):
        """A Secret as the kubelet mounts it: a change swaps one link, so that all files change together."""
        directory = self.work / "secrets" / name
        version = directory / f"..{time.monotonic_ns()}"
        version.mkdir(parents=True)
        for file, text in files.items():
            (version / file).write_text(text)
            if os.getuid() == 0:
                os.chown(version / file, 0, NONROOT)
            os.chmod(version / file, 0o440)
            if not (directory / file).is_symlink():
                (directory / file).symlink_to(f"..data/{file}")
        (directory / "..new").symlink_to(version.name)
        (directory / "..new").rename(directory / "..data")

    def scheme(self, port):
        return "https" if self.trust else "http"

    def address(self, pod):
        name, ordinal = pod.rsplit("-", 1)
        return f"{self.net}.{int(ordinal) + (100 if name.endswith('-gateway') else 10)}"

    def resolved(self, text):
        """Names of pods in the headless Service become their addresses; what does not resolve stays and fails."""
        domain = re.escape(f".tg-tollgate-peers.{NAMESPACE}.svc.cluster.local")
        return re.sub(rf"([a-z0-9-]+-\d+){domain}", lambda found: self.address(found.group(1)), text)

    def mounted(self, container, spec, path, pod):
        """Where a path of the container is on this machine."""
        for mount in container["volumeMounts"]:
            if path == mount["mountPath"] or path.startswith(mount["mountPath"] + "/"):
                volume = next((one for one in spec.get("volumes", []) if one["name"] == mount["name"]), None)
                if volume and "secret" in volume:
                    directory = self.work / "secrets" / volume["secret"]["secretName"]
                else:
                    chart.demand(not mount.get("readOnly"), f"{path} is to be written and mounted read-only")
                    directory = pod.volume
                return str(directory) + path[len(mount["mountPath"]):]
        raise chart.Failed(f"nothing is mounted at {path}, and the root is read-only")

    def container(self, port):
        container = self.objects[("StatefulSet", "tg-tollgate")]["spec"]["template"]["spec"]["containers"][0]
        return next(one["containerPort"] for one in container["ports"] if one["name"] == port)

    def ready(self):
        """What a Service sends clients to."""
        return [pod for pod in self.pods.values() if pod.ready and not pod.stopping]

    def all_ready(self):
        eventually("all pods are ready", lambda: all(pod.ready or pod.check() for pod in self.pods.values()))

    def api(self, method, path, body=None):
        """The admin API, through a ready pod; repeated while it says that it cannot now."""
        until = time.monotonic() + REPEAT_SECONDS
        while True:
            some = self.ready()
            status, text = some[int(time.monotonic() * 10) % len(some)].call(method, path, 8081, body, self.token) if some else (503, "no pod is ready")
            if status not in (0, 503) or time.monotonic() > until:
                break
            time.sleep(0.2)
        chart.demand(status < 300, f"{method} {path}: {status} {text}")
        return json.loads(text) if text else None

    def show(self):
        for pod in self.pods.values():
            print(f"--- {pod.name} (ready: {pod.ready}, exit code: {pod.process and pod.process.poll()}), end of its log")
            print("\n".join(pod.log.read_text(errors="replace").splitlines()[-15:]))

    def end(self):
        for pod in self.pods.values():
            pod.stopping = True
            if pod.process and pod.process.poll() is None:
                pod.process.kill()
                pod.process.wait()
        self.upstream.server.shutdown()


class Pod:
    """A process with the pod's command, environment, user and volume, and its kubelet."""

    def __init__(self, cluster, of, ordinal, spec):
        self.cluster, self.set, self.ordinal, self.spec = cluster, of, ordinal, spec
        self.name = f"{of}-{ordinal}"
        self.container = spec["containers"][0]
        self.address = cluster.address(self.name)
        self.volume = cluster.work / "volumes" / f"data-{self.name}"
        self.log = cluster.work / f"{self.name}.log"
        self.process, self.ready, self.stopping, self.broken = None, False, False, None

    def environment(self):
        env = {}
        for one in self.container["env"]:
            if "valueFrom" in one:
                path = one["valueFrom"]["fieldRef"]["fieldPath"]
                env[one["name"]] = {"metadata.name": self.name, "metadata.namespace": NAMESPACE}[path]
                continue
            # $(NAME) of a variable that stands before it, as Kubernetes replaces it.
            value = re.sub(r"\$\((\w+)\)", lambda found: env.get(found.group(1), found.group(0)), one.get("value", ""))
            value = self.cluster.resolved(value).replace("0.0.0.0:", f"{self.address}:")
            env[one["name"]] = self.cluster.mounted(self.container, self.spec, value, self) if value.startswith("/") else value
        return env

    def start(self):
        chart.demand("command" not in self.container, "the image's entry point is replaced")
        self.volume.mkdir(parents=True, exist_ok=True)
        user = {}
        if os.getuid() == 0:
            security = self.spec["securityContext"]
            os.chown(self.volume, security["runAsUser"], security["fsGroup"])
            chart.demand(security["fsGroup"] == NONROOT, "Secrets are mounted for another group")
            user = {"user": security["runAsUser"], "group": security["runAsGroup"], "extra_groups": [security["fsGroup"]]}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(self.cluster.work / "tollgate"), *self.container["args"]], env=self.environment(),
                                            stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", **user)
        self.cluster.pods[self.name] = self
        threading.Thread(target=self.kubelet, daemon=True).start()

    def kubelet(self):
        """Startup, then liveness and readiness, each by its own numbers. A pod that Kubernetes would restart is broken."""
        probes = {kind: self.container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
        failures = {kind: 0 for kind in probes}
        due = dict.fromkeys(probes, 0.0)
        started = False
        while self.process.poll() is None:
            now = time.monotonic()
            for kind, probe in probes.items():
                if (kind == "startup") == started or now < due[kind] or self.stopping and kind != "readiness":
                    continue
                due[kind] = now + probe["periodSeconds"]
                wanted = (probe["httpGet"]["port"], probe["httpGet"]["scheme"].lower())
                chart.demand(wanted == ("admin", self.cluster.scheme(8081)), f"{kind} asks {wanted}")
                well = self.get(probe["httpGet"]["path"], 8081, probe["timeoutSeconds"])[0] in range(200, 400)
                failures[kind] = 0 if well else failures[kind] + 1
                if kind == "startup":
                    started = well
                if kind == "readiness":
                    self.ready = well or self.ready and failures[kind] < probe["failureThreshold"]
                if kind != "readiness" and failures[kind] >= probe["failureThreshold"]:
                    self.broken = f"{kind} probe failed {failures[kind]} times: Kubernetes would restart {self.name}"
            time.sleep(0.05)
        self.ready = False
        if not self.stopping:
            self.broken = f"{self.name} ended by itself with {self.process.returncode}"

    def check(self):
        """False; an error when it will never become ready."""
        if self.broken:
            raise chart.Failed(self.broken)
        return False

    def get(self, path, port, timeout=5):
        return self.call("GET", path, port, timeout=timeout)

    def call(self, method, path, port, body=None, token=None, timeout=20, headers=None):
        """Status and text; 0 when there is no answer."""
        connection = self.connection(port, timeout)
        headers = {"authorization": f"Bearer {token}"} if token else headers or {}
        try:
            connection.request(method, path, body and json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def connection(self, port, timeout=20):
        if self.cluster.trust:
            return http.client.HTTPSConnection(self.address, port, timeout=timeout, context=self.cluster.trust)
        return http.client.HTTPConnection(self.address, port, timeout=timeout)

    def stop_gracefully(self):
        """SIGTERM, as the kubelet sends it; /readyz says 503 and the data plane answers on before it ends with 0."""
        delay = int(self.environment()["TOLLGATE_DRAIN_DELAY_SECONDS"])
        self.stopping = True
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        eventually(f"{self.name} says 503 on /readyz", lambda: self.get("/readyz", 8081)[0] == 503 or self.process.poll() is not None, delay)
        time.sleep(delay / 2)
        chart.demand(self.get("/", 8080)[0] == 401, f"{self.name} does not serve on while it says that it is not ready")
        self.wait_for_end()
        took = time.monotonic() - start
        chart.demand(took >= delay, f"{self.name} was gone after {took:.1f} s, before load balancers turn away")

    def wait_for_end(self):
        try:
            code = self.process.wait(self.spec["terminationGracePeriodSeconds"])
        except subprocess.TimeoutExpired:
            raise chart.Failed(f"{self.name} would be killed: it drains for longer than terminationGracePeriodSeconds") from None
        chart.demand(code == 0, f"{self.name} ended with {code}")

    def kill(self):
        self.stopping = True
        self.process.kill()
        self.process.wait()


class Upstream:
    """A service behind the gateway."""

    def __init__(self, address):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = b'{"findings": []}'
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

        self.server = Server((address, 0), Handler)
        self.url = f"http://{address}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Load:
    """Clients that keep their connections and repeat what was not executed: refused connections, and 503 that say so."""

    def __init__(self, cluster):
        self.cluster, self.answered, self.failures = cluster, {}, []
        self.repeated, self.longest, self.requests = collections.Counter(), 0.0, 0
        self.lock, self.end = threading.Lock(), threading.Event()

    def __enter__(self):
        api = self.cluster.api
        api("PUT", "/v1/upstreams/scan", {"targets": [{"url": self.cluster.upstream.url}]})
        limits = [{"name": "per-second", "per": ["key"], "rate": "1000000/s", "burst": 1000000}]
        quotas = [{"name": "daily", "unit": "requests", "limit": 1000000000, "period": "day", "timezone": "UTC"}]
        api("PUT", "/v1/tiers/load", {"limits": limits, "quotas": quotas, "concurrency": 1000})
        api("PUT", "/v1/routes/scan", {"match": {"path_prefix": "/scan"}, "upstream": "scan"})
        api("POST", "/v1/accounts", {"id": "load", "name": "load", "tier": "load"})
        self.key = api("POST", "/v1/accounts/load/keys", {"name": "load"})["secret"]
        self.threads = [threading.Thread(target=self.client, args=(number,), daemon=True) for number in range(CLIENTS)]
        for thread in self.threads:
            thread.start()
        eventually("requests are answered", lambda: len(self.answered) > 20)
        return self

    def __exit__(self, kind, *_):
        self.end.set()
        for thread in self.threads:
            thread.join(2 * REPEAT_SECONDS)

    def client(self, number):
        connection, turn = None, number
        while not self.end.is_set():
            start, first = time.monotonic(), True
            while True:
                if connection is None:
                    ready = self.cluster.ready()
                    turn += 1
                    pod = ready[turn % len(ready)] if ready else None
                    connection = pod and pod.connection(8080)
                status, why = 0, "no pod is ready"
                if connection:
                    try:
                        connection.request("GET", "/scan", headers={"x-api-key": self.key})
                        answer = connection.getresponse()
                        status, text = answer.status, answer.read()
                        identity = answer.headers.get("x-request-id")
                        why = text.decode(errors="replace")
                        if answer.headers.get("connection", "").lower() == "close":
                            connection.close()
                            connection = None
                    except (OSError, http.client.HTTPException) as error:
                        connection.close()
                        connection, why = None, repr(error)
                if status == 200:
                    break
                if status not in (0, 503) or time.monotonic() - start > REPEAT_SECONDS:
                    with self.lock:
                        self.failures.append(f"{status} after {time.monotonic() - start:.1f} s: {why}")
                    break
                # Another pod may serve.
                if connection:
                    connection.close()
                    connection = None
                with self.lock:
                    self.repeated["503" if status else "broken connections"] += 1
                time.sleep(0.05)
            with self.lock:
                self.requests += 1
                self.longest = max(self.longest, time.monotonic() - start)
                if status == 200:
                    self.answered[identity] = status
            self.end.wait(PAUSE_SECONDS)

    def count(self):
        with self.lock:
            self.longest = 0.0
            return self.requests, self.repeated.copy()

    def since(self, before):
        self.demand_clean()
        with self.lock:
            requests, repeated = self.requests - before[0], self.repeated - before[1]
            kinds = ", ".join(f"{count} for {kind}" for kind, count in sorted(repeated.items())) or "none"
            return f"{requests} requests, none failed; repeated: {kinds}; longest {self.longest:.1f} s"

    def demand_clean(self):
        with self.lock:
            chart.demand(not self.failures, f"{len(self.failures)} of {self.requests} requests failed: {self.failures[:3]}")
