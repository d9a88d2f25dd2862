"""What the chart renders: by Helm 3 and 4 alike, valid for each supported Kubernetes, as the golden files have it, and such that
nothing breaks on an upgrade. Rules and dashboards are parsed, and name only metrics that exist."""

import copy
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

HELM_DIR = Path(__file__).resolve().parents[1]
ROOT = HELM_DIR.parent
CHART = HELM_DIR / "tollgate"
GOLDEN = CHART / "tests" / "golden"
SCENARIOS = {"default": []} | {
    path.stem: ["-f", str(path)] for where in ("scenarios", "tests/values") for path in sorted((CHART / where).glob("*.yaml"))
}
KUBERNETES = ["1.27", "1.29", "1.31", "1.33", "1.35", "1.37"]
# Kinds that come with operators; their schemas are not Kubernetes' own.
OPERATORS = {"cert-manager.io", "monitoring.coreos.com", "gateway.networking.k8s.io", "keda.sh"}
# What may be changed in a StatefulSet that exists.
MUTABLE = {"replicas", "template", "updateStrategy", "minReadySeconds", "persistentVolumeClaimRetentionPolicy",
           "revisionHistoryLimit", "ordinals"}
# Settings that the chart sets from values of its own, so that `settings` has them not.
OWN = re.compile(r"^(data_dir|(data|admin|peer)_addr|peer_advertise|node_name|region|join|voters|admin_token_file|insecure|"
                 r"drain_.*|.*_tls_.*|upstream_ca|oidc_client_secret_file|oidc_ca|otlp_headers_file|otlp_ca)$")

# Settings that the schema may have before the binary of this revision does.
AHEAD = set()


class Failed(Exception):
    """What is wrong."""


def run(tools, update):
    bench = Bench(tools)
    tests = [value for name, value in vars(Bench).items() if name.startswith("test_")]
    failed = skipped = 0
    for test in tests:
        headline = test.__doc__.strip()
        try:
            why = test(bench, update) if test is Bench.test_golden else test(bench)
        except Failed as error:
            failed += 1
            print(f"FAILED   {headline}\n         " + str(error).replace("\n", "\n         "))
            continue
        skipped += bool(why)
        print(f"skipped  {headline} ({why})" if why else f"ok       {headline}")
    print(f"chart: {len(tests) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


def demand(holds, what):
    if not holds:
        raise Failed(what)


class Bench:
    def __init__(self, tools):
        self.tools = tools
        self.rendered = {}

    def helm(self, which, *arguments, chart=CHART):
        done = subprocess.run([str(self.tools.helms[which]), *arguments[:1], *arguments[1:2], str(chart), *arguments[2:]],
                              capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def render(self, *values, which=0, chart=CHART):
        """The objects that come out, by kind and name."""
        key = (values, which, str(chart))
        if key not in self.rendered:
            code, out, err = self.helm(which, "template", "tg", *values, "--namespace", "api", chart=chart)
            demand(code == 0, f"helm template {' '.join(values)}: {err}")
            self.rendered[key] = out
        objects = [one for one in yaml.safe_load_all(self.rendered[key]) if one]
        by_name = {(one["kind"], one["metadata"]["name"]): one for one in objects}
        demand(len(by_name) == len(objects), f"two objects of one kind and name in {values}")
        return by_name

    def scenarios(self):
        return {name: self.render(*values) for name, values in SCENARIOS.items()}

    # --- Helm ---

    def test_lint(self):
        """helm lint --strict, Helm 3 and 4, every scenario"""
        for which in range(len(self.tools.helms)):
            for name, values in SCENARIOS.items():
                done = subprocess.run([str(self.tools.helms[which]), "lint", "--strict", str(CHART), *values],
                                      capture_output=True, text=True)
                demand(done.returncode == 0, f"{self.tools.helms[which].name}, {name}: {done.stdout}{done.stderr}")

    def test_versions_of_helm_agree(self):
        """Helm 3 and 4 render the same objects"""
        for name, values in SCENARIOS.items():
            demand(self.render(*values) == self.render(*values, which=1), f"they differ for {name}")

    def test_renders_twice_the_same(self):
        """nothing is random: an upgrade changes no secret (helm #3053)"""
        for name, values in SCENARIOS.items():
            first = self.render(*values)
            self.rendered.clear()
            demand(first == self.render(*values), f"two renderings of {name} differ")
        for path in (CHART / "templates").rglob("*"):
            text = path.read_text() if path.is_file() else ""
            found = re.search(r"\b(rand\w+|gen(CA|SelfSigned|Signed|PrivateKey)\w*|uuidv4|now|lookup)\b(?=[ )])", text)
            demand(not (found and "{{" in text and re.search(r"{{[^}]*\b" + found.group(1) + r"\b", text)),
                   f"{path.name} uses {found and found.group(1)}")

    def test_golden(self, update):
        """renderings are as the golden files have them (--update makes these anew)"""
        for name, objects in self.scenarios().items():
            text = normal_form(objects)
            path = GOLDEN / f"{name}.yaml"
            if update:
                path.write_text(text)
                continue
            demand(path.exists(), f"{path} is not there: helm/test --update chart")
            if path.read_text() != text:
                with tempfile.NamedTemporaryFile("w", suffix=".yaml") as now:
                    now.write(text)
                    now.flush()
                    said = subprocess.run(["diff", "-u", str(path), now.name], capture_output=True, text=True).stdout
                raise Failed(f"{name} differs; if that is meant: helm/test --update chart\n" + said[:4000])

    def test_kubernetes(self):
        """every object is valid, strictly, for Kubernetes 1.27 to 1.37"""
        for name, objects in self.scenarios().items():
            for one in objects.values():
                foreign = one["apiVersion"].split("/")[0] in OPERATORS
                for version in [] if foreign else KUBERNETES:
                    try:
                        kubernetes_validate.validate(one, version, strict=True)
                    except kubernetes_validate.ValidationError as error:
                        raise Failed(f"{name}, {one['kind']} {one['metadata']['name']}, Kubernetes {version}: "
                                     f"{'.'.join(map(str, error.path))}: {error.message}") from None
                    except kubernetes_validate.SchemaNotFoundError as error:
                        raise Failed(f"{name}: {error.message}") from None

    # --- Upgrades ---

    def test_immutable_fields(self):
        """no upgrade touches what a StatefulSet or Service cannot change (loki #23912)"""
        before = self.render()
        changes = [["--set", "cluster.replicas=5"], ["--set", "image.tag=other"], ["--set", "tls.mode=insecure"],
                   ["--set", "commonLabels.team=edge"], ["--set", "voters.podLabels.a=b"], ["--set", "cluster.region=eu"],
                   ["--set", "settings.workers=2"], ["--set", "admin.existingSecret=x"],
                   ["--set", "gateways.replicas=2"], ["--set", "gateways.autoscaling.kind=hpa"]]
        with self.newer_chart() as newer:
            afters = [(str(change), self.render(*change)) for change in changes]
            afters.append(("a newer chart", self.render(chart=newer)))
        for what, after in afters:
            for key, old in before.items():
                if key[0] in ("StatefulSet", "Service"):
                    demand(key in after, f"{what}: {key} is gone")
                    new = after[key]
                if key[0] == "StatefulSet":
                    fixed = lambda one: {name: value for name, value in one["spec"].items() if name not in MUTABLE}
                    demand(fixed(old) == fixed(new), f"{what}: {key} changes {fixed(old)} to {fixed(new)}")
                if key[0] == "Service":
                    demand(old["spec"].get("clusterIP") == new["spec"].get("clusterIP"), f"{what}: {key} changes clusterIP")
                if key[0] == "Deployment":
                    raise Failed("Deployments have selectors that cannot change either: extend this test")

    def test_a_newer_chart_restarts_nothing(self):
        """a chart's new version alone changes no pod template"""
        with self.newer_chart() as newer:
            for key, old in self.render().items():
                if key[0] == "StatefulSet":
                    new = self.render(chart=newer)[key]
                    demand(old["spec"]["template"] == new["spec"]["template"], f"{key} would restart")

    def newer_chart(self):
        work = tempfile.TemporaryDirectory()
        chart = Path(work.name) / "tollgate"
        subprocess.run(["cp", "-r", str(CHART), str(chart)], check=True)
        about = (chart / "Chart.yaml").read_text()
        newer, count = re.subn(r"(?m)^version: .*$", "version: 99.0.0", about)
        demand(count == 1, "Chart.yaml has no version")
        (chart / "Chart.yaml").write_text(newer)

        class Held:
            def __enter__(self):
                return chart

            def __exit__(self, *_):
                work.cleanup()

        return Held()

    def test_no_install_hooks(self):
        """no hooks but the test's: --wait and Argo CD have nothing to deadlock on (cockroachdb/helm-charts #69, #149, #402)"""
        for name, objects in self.scenarios().items():
            for key, one in objects.items():
                hook = one["metadata"].get("annotations", {}).get("helm.sh/hook")
                demand(hook in (None, "test"), f"{name}: {key} is a {hook} hook")
                demand(key[0] != "Job", f"{name}: {key} is a Job")

    def test_formation_is_not_in_values(self):
        """every node has the same list, in every start; names of pods are nodes' names"""
        for name, objects in self.scenarios().items():
            for key, one in objects.items():
                if key[0] != "StatefulSet":
                    continue
                env = environment(one)
                demand(env["TOLLGATE_NODE_NAME"] == "$(POD_NAME)", f"{name}: {key} does not name nodes by their pods")
                demand(env["TOLLGATE_PEER_ADVERTISE"].startswith("$(POD_NAME)."), f"{name}: {key} advertises one address for all")
                demand(env["TOLLGATE_JOIN"] == environment(objects[("StatefulSet", voters_name(objects))])["TOLLGATE_JOIN"],
                       f"{name}: gateways have another list than voters")
                demand(one["spec"]["podManagementPolicy"] == "Parallel", f"{name}: {key} waits for pods that wait for it")
            peers = next(one for key, one in objects.items() if key[0] == "Service" and one["spec"].get("clusterIP") == "None")
            demand(peers["spec"]["publishNotReadyAddresses"], f"{name}: nodes that are not ready could not meet")
        for replicas, voters, listed in [(1, "1", 1), (2, "1", 1), (3, "3", 3), (4, "3", 3), (5, "5", 5), (7, "5", 5)]:
            env = environment(self.render("--set", f"cluster.replicas={replicas}")[("StatefulSet", "tg-tollgate")])
            demand((env["TOLLGATE_VOTERS"], len(env["TOLLGATE_JOIN"].split(","))) == (voters, listed), f"{replicas} replicas: {env}")

    # --- Pods ---

    def test_restricted(self):
        """pods fulfil the restricted security standard, with a read-only root and no token"""
        for name, objects in self.scenarios().items():
            for key, pod in pods(objects):
                where = f"{name}: {key}"
                spec = pod["spec"]
                demand(spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0, f"{where} may be root")
                demand(spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, f"{where}: seccomp")
                demand(spec["automountServiceAccountToken"] is False, f"{where} has a token of the API server")
                demand(not any(spec.get(host) for host in ("hostNetwork", "hostPID", "hostIPC")), f"{where}: host namespaces")
                for container in spec["containers"]:
                    security = container["securityContext"]
                    demand(security["capabilities"] == {"drop": ["ALL"]}, f"{where}: capabilities")
                    demand(security["allowPrivilegeEscalation"] is False, f"{where}: privilege escalation")
                    demand(security["readOnlyRootFilesystem"] is True, f"{where}: root is writable")
                    demand("limits" in container["resources"] and "memory" in container["resources"]["limits"],
                           f"{where}: memory has no limit")

    def test_no_service_links(self):
        """pods get no TOLLGATE_PORT=tcp://… from a Service named tollgate, which a node would refuse as a setting"""
        for name, objects in self.scenarios().items():
            for key, pod in pods(objects):
                demand(pod["spec"]["enableServiceLinks"] is False, f"{name}: {key}")

    def test_probes_and_drain(self):
        """probes are apart; Kubernetes waits longer than a node drains"""
        for name, objects in self.scenarios().items():
            for key, one in objects.items():
                if key[0] != "StatefulSet":
                    continue
                spec = one["spec"]["template"]["spec"]
                container = spec["containers"][0]
                paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
                demand(paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}, f"{name}: {key} {paths}")
                env = environment(one)
                delay, requests = int(env["TOLLGATE_DRAIN_DELAY_SECONDS"]), int(env["TOLLGATE_DRAIN_SECONDS"])
                readiness = container["readinessProbe"]
                noticed = readiness["periodSeconds"] * readiness["failureThreshold"]
                demand(delay > noticed, f"{name}: {key} stops serving before {noticed} s of 503 are noticed")
                demand(spec["terminationGracePeriodSeconds"] > delay + requests, f"{name}: {key} is killed while it drains")
        env = environment(self.render()[("StatefulSet", "tg-tollgate")])
        demand(15 <= int(env["TOLLGATE_DRAIN_DELAY_SECONDS"]) <= 30, "the default delay is not 15 to 30 s")

    def test_references(self):
        """what objects name is there: Services and policies select pods, volumes are mounted, targets exist"""
        for name, objects in self.scenarios().items():
            templates = dict(pods(objects))
            labels = {key: pod["metadata"]["labels"] for key, pod in templates.items()}
            nodes = {key: value for key, value in labels.items() if key[0] == "StatefulSet"}

            def selects(selector, some):
                return all(selector.items() <= one.items() for one in some.values())

            for key, one in objects.items():
                where, spec = f"{name}: {key}", one.get("spec", {})
                if key[0] == "Service":
                    demand(selects(spec["selector"], nodes), f"{where} does not select the nodes")
                    test = [value for other, value in labels.items() if other[0] == "Pod"]
                    demand(not any(spec["selector"].items() <= one.items() for one in test), f"{where} selects the test pod")
                if key[0] == "StatefulSet":
                    demand(selects(spec["selector"]["matchLabels"], {key: labels[key]}), f"{where} does not select its pods")
                    demand(("Service", spec["serviceName"]) in objects, f"{where}: its Service is not there")
                    budgets = [other for other in objects.values() if other["kind"] == "PodDisruptionBudget"
                               and other["spec"]["selector"]["matchLabels"].items() <= labels[key].items()]
                    demand(len(budgets) == 1 and budgets[0]["spec"]["maxUnavailable"] == 1, f"{where}: {len(budgets)} budgets")
                    for spread in spec["template"]["spec"]["topologySpreadConstraints"]:
                        demand(spread["labelSelector"]["matchLabels"].items() <= labels[key].items(), f"{where}: spread")
                if key[0] == "NetworkPolicy":
                    demand(selects(spec["podSelector"]["matchLabels"], nodes), f"{where} does not hold the nodes")
                    admin = next(rule for rule in spec["ingress"] if rule["ports"][0]["port"] == "admin")
                    for other, value in labels.items():
                        if other[0] == "Pod":
                            demand(admin["from"][0]["podSelector"]["matchLabels"].items() <= value.items(), f"{where}: helm test is kept out")
                if key[0] in ("HorizontalPodAutoscaler", "ScaledObject"):
                    target = (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
                    demand(target in objects, f"{where}: {target} is not there")
                    demand("replicas" not in objects[target]["spec"], f"{where}: an upgrade would undo its scaling")
                if key[0] == "ServiceMonitor":
                    watched = [other for other in objects.values() if other["kind"] == "Service"
                               and spec["selector"]["matchLabels"].items() <= other["metadata"]["labels"].items()]
                    ports = [port["name"] for other in watched for port in other["spec"]["ports"]]
                    demand(ports == [spec["endpoints"][0]["port"]], f"{where} watches {ports}")
            for key, pod in templates.items():
                claims = objects.get(key, {}).get("spec", {}).get("volumeClaimTemplates", [])
                volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])} | {one["metadata"]["name"] for one in claims}
                for container in pod["spec"]["containers"]:
                    mounted = {mount["name"] for mount in container["volumeMounts"]}
                    demand(mounted == volumes, f"{name}: {key} mounts {mounted} of {volumes}")
                    files = [file for value in environment_of(container).values() if value.startswith("/etc/") for file in value.split(",")]
                    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
                    for file in files:
                        demand(any((file + "/").startswith(path + "/") for path in paths), f"{name}: {key}: nothing is mounted for {file}")
                    demand(not any("subPath" in mount for mount in container["volumeMounts"]), f"{name}: {key}: a subPath is never renewed")
            token = any("admin-token" in str(pod["spec"].get("volumes")) for pod in templates.values())
            demand(token == any(key[0] == "Pod" for key in templates), f"{name}: a token, and no helm test, or the other way round")
            made = {one["spec"]["secretName"] for one in objects.values() if one["kind"] == "Certificate"}
            wanted = {volume["secret"]["secretName"] for pod in templates.values() for volume in pod["spec"].get("volumes", [])
                      if volume["name"] in ("tls-peers", "tls-admin", "tls-data")}
            demand(not made or wanted <= made, f"{name}: no Certificate fills {wanted - made}")

    # --- Values and settings ---

    def test_values(self):
        """values.yaml is short, and the schema knows exactly its entries"""
        text = (CHART / "values.yaml").read_text()
        demand(len(text.splitlines()) < 500, "values.yaml has 500 lines")
        schema = json.loads((CHART / "values.schema.json").read_text())

        def walk(value, part, path):
            part = schema["definitions"][part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part
            if not isinstance(value, dict) or "properties" not in part:
                return
            known, there = set(part["properties"]), set(value)
            if path in (("settings",), ()):
                known &= there | {"nothing"} if path else known - {"global"}
            optional = {"initialDelaySeconds"} if path[:1] == ("probes",) else set()
            demand(known - optional == there, f"{'.'.join(path) or 'values'}: the schema has {known ^ there} differently")
            demand(part.get("additionalProperties") is False, f"{'.'.join(path)}: further entries are let through")
            for name, one in value.items():
                walk(one, part["properties"][name], (*path, name))

        walk(yaml.safe_load(text), schema, ())

    def test_wrong_values(self):
        """wrong values are refused, naming the place"""
        for value, said in [("cluster.replicaas=3", "replicaas"), ("cluster.voters=2", "voters"), ("settings.workerz=1", "workerz"),
                            ("settings.workers=many", "workers"), ("tls.mode=maybe", "mode"), ("drain.delaySeconds=-1", "delaySeconds"),
                            ("tls.mode=existingSecrets", "tls.peers.existingSecret"),
                            ("tls.data.enabled=true", "tls.data.names"), ("cluster.join={a:1}", "cluster.voters"),
                            ("ingress.enabled=true", "ingress.hosts"), ("httpRoute.enabled=true", "httpRoute.parentRefs"),
                            ("gateways.autoscaling.kind=keda", "prometheusAddress"),
                            ("gateways.autoscaling.kind=hpa,gateways.autoscaling.minReplicas=4,gateways.autoscaling.maxReplicas=3",
                             "minReplicas is 4 and maxReplicas 3"),
                            ("gateways.autoscaling.kind=keda,gateways.autoscaling.prometheusAddress=http://p,"
                             "gateways.autoscaling.minReplicas=11", "minReplicas is 11 and maxReplicas 10"),
                            ("gateways.autoscaling.kind=hpa,gateways.autoscaling.minReplicas=0", "minReplicas is 0"),
                            ("tls.mode=insecure,tls.data.enabled=true", "tls.data.existingSecret"),
                            ("tls.mode=insecure,tls.admin.existingSecret=a", "tls.admin.existingSecret"),
                            ("tls.mode=insecure,tls.peers.existingSecret=a", "tls.peers.existingSecret"),
                            ("tls.mode=insecure,tls.admin.clientCaSecret=a", "tls.admin.clientCaSecret"),
                            ("tls.data.existingSecret=a", "tls.data.enabled"), ("tls.data.clientCaSecret=a", "tls.data.enabled"),
                            ("tls.data.extraSecrets={a}", "tls.data.enabled"), ("tls.data.clientAuth=maybe", "clientAuth"),
                            ("settings.otlp_ca=/etc/ca.crt", "otlp_ca"), ("settings.otlp_sample_ratio=1.5", "otlp_sample_ratio"),
                            ("otlp.existingSecret=a,otlp.headersKey=", "otlp.headersKey")]:
            for which in range(len(self.tools.helms)):
                code, _, err = self.helm(which, "template", "tg", "--set", value)
                demand(code != 0 and said in err, f"{value}: {err or 'let through'}")

    def test_settings(self):
        """`settings` of the schema are the binary's; every TOLLGATE_ variable is one"""
        table = (ROOT / "gateway/src/config/table.rs").read_text()
        known = dict(re.findall(r'(?m)^    (\w+), "(TOLLGATE_\w+)":', table))
        schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]["properties"]
        expected = {name for name in known if not OWN.match(name)}
        demand(set(schema) - AHEAD == expected - AHEAD and expected <= set(schema), f"the schema and {set(schema) ^ expected} differ")
        for name, objects in self.scenarios().items():
            for key, pod in pods(objects):
                for container in pod["spec"]["containers"] if key[0] == "StatefulSet" else []:
                    for variable in environment_of(container):
                        demand(variable in known.values() or not variable.startswith("TOLLGATE_"), f"{name}: {variable} is no setting")

    def test_numbers(self):
        """numbers come out as they were given, by a file and by --set: no 1e+09, and 0.25 is not 0"""
        given = {"max_body_bytes": 1125899906842624, "max_connections": 1000000, "otlp_sample_ratio": 0.25, "workers": 0}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"settings": given}, file)
            file.flush()
            ways = [("-f", file.name)] + [("--set-json", f"settings={json.dumps(given)}")]
            ways += [("--set", ",".join(f"settings.{name}={value}" for name, value in given.items() if value != 0.25))]
            for which, way in ((which, way) for which in range(len(self.tools.helms)) for way in ways):
                env = environment(self.render(*way, which=which)[("StatefulSet", "tg-tollgate")])
                for name, value in given.items() if way[0] != "--set" else []:
                    came = env[f"TOLLGATE_{name.upper()}"]
                    demand(came == str(value), f"{self.tools.helms[which].name} {way[0]}: {name} {value} comes out as {came}")
                demand(env["TOLLGATE_MAX_CONNECTIONS"] == "1000000", f"{self.tools.helms[which].name} {way[0]}: {env}")
            for ratio, said in ((1, "1"), (0, "0"), (0.001, "0.001")):
                for which in range(len(self.tools.helms)):
                    env = environment(self.render("--set-json", f"settings.otlp_sample_ratio={ratio}", which=which)[("StatefulSet", "tg-tollgate")])
                    demand(env["TOLLGATE_OTLP_SAMPLE_RATIO"] == said, f"the ratio {ratio} comes out as {env['TOLLGATE_OTLP_SAMPLE_RATIO']}")

    def test_sign_in(self):
        """the provider's secret, and its authorities, are files where the node is told that they are, in every pod of a node"""
        name = "/etc/tollgate/sign-in"
        for more, expected in [((), {"client-secret": "client-secret"}), (("--set", "signIn.caKey=own-ca"), {"client-secret": "client-secret", "own-ca": "ca.crt"}),
                               (("--set", "signIn.key=s"), {"s": "client-secret"})]:
            objects = self.render("--set", "signIn.existingSecret=idp", "--set", "gateways.replicas=1", *more)
            nodes = [(key, pod) for key, pod in pods(objects) if key[0] == "StatefulSet"]
            demand(len(nodes) == 2, f"nodes of {[key for key, _ in nodes]}")
            for key, pod in nodes:
                container = pod["spec"]["containers"][0]
                env = environment_of(container)
                told = {variable: env.get(variable) for variable in ("TOLLGATE_OIDC_CLIENT_SECRET_FILE", "TOLLGATE_OIDC_CA")}
                ca = f"{name}/ca.crt" if "ca.crt" in expected.values() else None
                demand(told == {"TOLLGATE_OIDC_CLIENT_SECRET_FILE": f"{name}/client-secret", "TOLLGATE_OIDC_CA": ca}, f"{key}: {told}")
                mounts = [mount for mount in container["volumeMounts"] if mount["mountPath"] == name]
                demand(len(mounts) == 1 and mounts[0].get("readOnly") is True, f"{key}: {mounts}")
                secret = next(volume["secret"] for volume in pod["spec"]["volumes"] if volume["name"] == mounts[0]["name"])
                items = {item["key"]: item["path"] for item in secret["items"]}
                demand((secret["secretName"], items) == ("idp", expected), f"{key}: {secret}")
                demand(secret["defaultMode"] & 0o007 == 0, f"{key}: everybody may read it")
        plain = str(self.render())
        demand(name not in plain and "TOLLGATE_OIDC" not in plain, "a sign-in that nobody has asked for")

    def test_files_of_secrets(self):
        """each file that a node is told of comes from the Secret and key that the values name, read-only, in every pod of a node"""
        told = {
            "ADMIN_TOKEN_FILE": [("tollgate-admin", "token")], "OIDC_CA": [("identity-provider", "ca.crt")],
            "OIDC_CLIENT_SECRET_FILE": [("identity-provider", "client-secret")],
            "OTLP_HEADERS_FILE": [("collector", "headers")], "OTLP_CA": [("collector", "ca.crt")],
            "PEER_TLS_CERT": [("node-peers", "tls.crt")], "PEER_TLS_KEY": [("node-peers", "tls.key")], "PEER_TLS_CA": [("node-peers", "ca.crt")],
            "ADMIN_TLS_CERT": [("node-admin", "tls.crt")], "ADMIN_TLS_KEY": [("node-admin", "tls.key")],
            "ADMIN_TLS_CLIENT_CA": [("operators-ca", "ca.crt")],
            "DATA_TLS_CERT": [(name, "tls.crt") for name in ("api.example.com-tls", "api.example.org-tls", "legacy-tls")],
            "DATA_TLS_KEY": [(name, "tls.key") for name in ("api.example.com-tls", "api.example.org-tls", "legacy-tls")],
            "DATA_TLS_CLIENT_CA": [("partners-ca", "ca.crt")], "UPSTREAM_CA": [("upstreams-ca", "ca.crt")],
            "UPSTREAM_TLS_CERT": [("upstreams-client", "tls.crt")], "UPSTREAM_TLS_KEY": [("upstreams-client", "tls.key")],
        }
        table = (ROOT / "gateway/src/config/table.rs").read_text()
        files = set(re.findall(r'"TOLLGATE_(\w+)": (?:PathBuf|List) = "", "(?:FILE|FILE,\.\.\.)"', table))
        demand(files == set(told), f"the binary's files and the chart's differ: {files ^ set(told)}")
        for which in range(len(self.tools.helms)):
            objects = self.render(*SCENARIOS["secrets"], which=which)
            nodes = [(key, pod) for key, pod in pods(objects) if key[0] == "StatefulSet"]
            demand(len(nodes) == 2, f"nodes of {[key for key, _ in nodes]}")
            for key, pod in nodes:
                container = pod["spec"]["containers"][0]
                env, mounts = environment_of(container), container["volumeMounts"]
                volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
                for variable, expected in told.items():
                    came = []
                    for file in env.get(f"TOLLGATE_{variable}", "").split(","):
                        mount = next((mount for mount in mounts if file.rpartition("/")[0] == mount["mountPath"]), None)
                        demand(mount and mount.get("readOnly") is True, f"{key}: {variable} {file!r}: {mount}")
                        secret = volumes[mount["name"]]["secret"]
                        demand(secret["defaultMode"] & 0o007 == 0, f"{key}: everybody may read {file}")
                        items = {item["path"]: item["key"] for item in secret["items"]} if "items" in secret else None
                        name = file.rpartition("/")[2]
                        came.append((secret["secretName"], name if items is None else items.get(name)))
                    demand(came == expected, f"{key}: {variable} is {came}, not {expected}")
                demand(env["TOLLGATE_DATA_TLS_CLIENT_AUTH"] == "required", f"{key}: clients need no certificate")
                demand(env["TOLLGATE_ADMIN_TLS_CLIENT_AUTH"] == "optional", f"{key}: the kubelet's probes are refused")
                demand({"name": "own-certs", "mountPath": "/etc/own/certs", "readOnly": True} in mounts, f"{key}: extraVolumeMounts")
                demand(volumes.get("own-certs") == {"name": "own-certs", "configMap": {"name": "own-certs"}}, f"{key}: extraVolumes")
        optional = self.render(*SCENARIOS["secrets"], "--set", "tls.data.clientAuth=optional,otlp.headersKey=")
        env = environment(optional[("StatefulSet", "tg-tollgate")])
        demand(env["TOLLGATE_DATA_TLS_CLIENT_AUTH"] == "optional", f"clientAuth: {env}")
        demand("TOLLGATE_OTLP_HEADERS_FILE" not in env and "TOLLGATE_OTLP_CA" in env, f"a Secret with authorities alone: {env}")

    def test_data_tls_in_every_mode(self):
        """the data plane has TLS when tls.data.enabled says so, whatever the mode is; a Secret that is named wins over cert-manager"""
        cases = [("tls.mode=insecure,tls.data.existingSecret=public", "public", {}),
                 ("tls.mode=insecure,tls.data.names={api.test}", "tg-tollgate-data-tls", {"tg-tollgate-data", "tg-tollgate-data-ca"}),
                 ("tls.mode=certManager,tls.data.existingSecret=public", "public", {"tg-tollgate-peers", "tg-tollgate-admin"}),
                 ("tls.mode=existingSecrets,tls.data.existingSecret=public,tls.peers.existingSecret=p,tls.admin.existingSecret=a", "public", {})]
        for values, secret, certificates in cases:
            for which in range(len(self.tools.helms)):
                objects = self.render("--set", "tls.data.enabled=true," + values, which=which)
                node = objects[("StatefulSet", "tg-tollgate")]
                env = environment(node)
                demand(env.get("TOLLGATE_DATA_TLS_CERT") == "/etc/tollgate/tls/data/tls.crt", f"{values}: the data plane speaks plain text")
                volumes = {volume["name"]: volume for volume in node["spec"]["template"]["spec"]["volumes"]}
                demand(volumes["tls-data"]["secret"]["secretName"] == secret, f"{values}: {volumes['tls-data']}")
                demand(objects[("Service", "tg-tollgate")]["spec"]["ports"][0]["name"] == "https", f"{values}: the Service says http")
                insecure = "insecure" in values
                demand(("TOLLGATE_INSECURE" in env, "TOLLGATE_PEER_TLS_CERT" in env) == (insecure, not insecure), f"{values}: {env}")
                made = {name for kind, name in objects if kind == "Certificate"}
                wanted = set(certificates) | {f"{name}-ca" for name in certificates if not name.endswith("-ca")}
                demand(made == wanted, f"{values}: certificates {made}, not {wanted}")

    def test_helm_test_of_demanding_clients(self):
        """where clients must show a certificate, helm test shows one, and is not there when it has none"""
        demanding = ("--set", "admin.existingSecret=t,tls.data.enabled=true,tls.data.existingSecret=d,tls.data.clientCaSecret=c")
        test = ("Pod", "tg-tollgate-test")
        demand(test not in self.render(*demanding), "a helm test that must fail")
        demand(test in self.render(*demanding, "--set", "tls.data.clientAuth=optional"), "a certificate is optional, and no helm test")
        pod = self.render(*demanding, "--set", "tests.clientSecret=mine").get(test)
        demand(pod, "a certificate, and no helm test")
        env = environment_of(pod["spec"]["containers"][0])
        demand((env.get("DATA_CERT"), env.get("DATA_KEY")) == ("/etc/tollgate/tls/client/tls.crt", "/etc/tollgate/tls/client/tls.key"), f"{env}")
        demand('--cert "$DATA_CERT" --key "$DATA_KEY"' in pod["spec"]["containers"][0]["command"][2], "the script does not show it")

    def test_compose_and_systemd(self):
        """compose.yaml and the systemd unit: settings that exist, nodes that find themselves, graces longer than a drain"""
        table = (ROOT / "gateway/src/config/table.rs").read_text()
        known = set(re.findall(r'(?m)^    \w+, "(TOLLGATE_\w+)":', table)) | {"TOLLGATE_ADMIN_TOKEN"}
        drain = int(re.search(r'drain_seconds, "TOLLGATE_DRAIN_SECONDS": u64 = "(\d+)"', table).group(1))
        services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
        ports = [port for service in services.values() for port in service["ports"]]
        demand(len({port.rsplit(":", 1)[0] for port in ports}) == len(ports) == 6, f"compose.yaml: {ports}")
        demand(len({service["volumes"][0] for service in services.values()}) == 3, "compose.yaml: two nodes share a volume")
        for name, service in services.items():
            env = service["environment"]
            demand(set(env) <= known, f"compose.yaml: {set(env) - known} are no settings")
            demand(f"{service['hostname']}:8082" in env["TOLLGATE_JOIN"].split(","), f"compose.yaml: {name} is not in its list")
            demand(len(env["TOLLGATE_JOIN"].split(",")) == len(services), "compose.yaml: the list has others")
            demand(int(service["stop_grace_period"].rstrip("s")) > drain, f"compose.yaml: {name} is killed while it drains")
        unit = (ROOT / "deploy/tollgate.service").read_text()
        named = set(re.findall(r"(?m)^#?Environment=(\w+)=", unit))
        demand(named and named <= known, f"tollgate.service: {named - known}")
        demand(int(re.search(r"(?m)^TimeoutStopSec=(\d+)$", unit).group(1)) > drain, "tollgate.service: it is killed while it drains")
        demand("LimitCORE=0" in unit, "tollgate.service: a crash writes keys to disk")
        demand("SystemCallFilter=~@resources" not in unit and "@resources" not in unit, "tollgate.service: prlimit64 is needed")
        demand("\nExecReload=/bin/kill -HUP $MAINPID\n" in unit, "tollgate.service: `systemctl reload` does nothing")
        group = re.search(r"(?m)^SupplementaryGroups=(\S+)$", unit)
        demand(group and f"groupadd --system --force {group.group(1)}\n" in unit and f"-m 640 -g {group.group(1)} " in unit,
               "tollgate.service: its own user reads no key that root keeps to itself, and no group is there to let it")
        if shutil.which("systemd-analyze"):
            with tempfile.TemporaryDirectory() as work:
                copied = Path(work) / "tollgate.service"
                copied.write_text(unit.replace("/usr/local/bin/tollgate", "/bin/true"))
                done = subprocess.run(["systemd-analyze", "verify", str(copied)], capture_output=True, text=True)
                demand(done.returncode == 0 and not done.stderr.strip(), f"systemd-analyze: {done.stderr}")

    # --- Monitoring ---

    def test_rules(self):
        """promtool: rules are well-formed, and their unit tests pass"""
        if not self.tools.promtool:
            return "promtool cannot be installed"
        for command in (["check", "rules", "--lint=all", "--lint-fatal", str(CHART / "rules/tollgate.yaml")],
                        ["test", "rules", str(CHART / "tests/rules.test.yaml")]):
            done = subprocess.run([str(self.tools.promtool), *command], capture_output=True, text=True)
            demand(done.returncode == 0, done.stdout + done.stderr)

    def test_every_alert_is_tested(self):
        """each alert has a test in which it fires and one in which it does not"""
        cases = yaml.safe_load((CHART / "tests/rules.test.yaml").read_text())["tests"]
        seen = set()
        for check in (check for case in cases for check in case["promql_expr_test"]):
            alert = re.search(r'alertname="(\w+)"', check["expr"]).group(1)
            seen.add((alert, bool(check["exp_samples"])))
        alerts = {rule["alert"] for group in rules() for rule in group["rules"] if "alert" in rule}
        missing = {(alert, fires) for alert in alerts for fires in (True, False)} - seen
        demand(not missing, f"no test for {sorted(missing)}")
        demand({alert for alert, _ in seen} == alerts, "a test names an alert that is not there")
        for rule in (rule for group in rules() for rule in group["rules"] if "alert" in rule):
            demand(rule["labels"]["severity"] in ("warning", "critical"), f"{rule['alert']}: severity")
            demand({"summary", "description"} <= set(rule["annotations"]), f"{rule['alert']}: annotations")

    def test_dashboards(self):
        """dashboards are well-formed, and promtool can parse each query"""
        uids, queries = set(), []
        for path in sorted((CHART / "dashboards").glob("*.json")):
            board = json.loads(path.read_text())
            demand({"uid", "title", "panels", "schemaVersion", "templating", "time"} <= set(board), f"{path.name}: parts are missing")
            demand(board["uid"] not in uids, f"{path.name}: its uid is taken")
            uids.add(board["uid"])
            ids = [panel["id"] for panel in board["panels"]]
            demand(len(ids) == len(set(ids)), f"{path.name}: two panels have one id")
            variables = {variable["name"] for variable in board["templating"]["list"]}
            taken = set()
            for panel in board["panels"]:
                where = f"{path.name}: {panel['title']}"
                place = panel["gridPos"]
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
                demand(place["x"] + place["w"] <= 24 and not cells & taken, f"{where} lies over another panel")
                taken |= cells
                if panel["type"] in ("row", "text"):
                    continue
                demand(panel["targets"] and panel["datasource"]["uid"] == "${datasource}", f"{where} has no query or its own source")
                demand(panel["fieldConfig"]["defaults"].get("unit"), f"{where} has no unit")
                for target in panel["targets"]:
                    used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
                    demand(used <= variables, f"{where} uses {used - variables}")
                    queries.append((where, target["expr"]))
        demand(len(uids) == 4, f"{len(uids)} dashboards")
        if not self.tools.promtool:
            return "well-formed; promtool cannot be installed"
        some = [{"record": f"q{number}", "expr": filled(query)} for number, (_, query) in enumerate(queries)]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "queries", "rules": some}]}, file)
            file.flush()
            done = subprocess.run([str(self.tools.promtool), "check", "rules", "--lint=none", file.name], capture_output=True, text=True)
        demand(done.returncode == 0, done.stdout + done.stderr)

    def test_metrics_exist(self):
        """every metric that rules and dashboards name is one of the binary's"""
        known = metrics_of_the_source()
        recorded = {rule["record"] for group in rules() for rule in group["rules"] if "record" in rule}
        named = metrics_named()
        demand(len(named) > 30, f"only {len(named)} metrics are named")
        missing = {name for name in named if base_of(name, known) not in known and name not in recorded}
        demand(not missing, f"not there: {sorted(missing)}")


def base_of(name, known):
    """A histogram's series are its name's."""
    return name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)


def metrics_of_the_source():
    found = set()
    for room in ("gateway/src", "store/src"):
        for path in (ROOT / room).rglob("*.rs"):
            found |= set(re.findall(r'"((?:tollgate|http_server|http_client)_[a-z0-9_]+)"', path.read_text()))
    return found


def metrics_named():
    queries = [rule["expr"] for group in rules() for rule in group["rules"]]
    for path in (CHART / "dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        queries += [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
        queries += [variable["query"]["query"] for variable in board["templating"]["list"] if isinstance(variable["query"], dict)]
    for path in (CHART / "templates").glob("*.yaml"):
        queries += re.findall(r"(?m)query: (.*)$", path.read_text())
    return {name for query in queries for name in re.findall(r"\b(?:tollgate|http_server|http_client)[_:][a-z0-9_:]+", query)}


def rules():
    return yaml.safe_load((CHART / "rules/tollgate.yaml").read_text())["groups"]


def filled(query):
    return re.sub(r"\$(namespace|job|pod)", ".*", query.replace("$__rate_interval", "5m"))


def pods(objects):
    for key, one in objects.items():
        if key[0] == "StatefulSet":
            yield key, one["spec"]["template"]
        if key[0] == "Pod":
            yield key, one


def environment(stateful_set):
    return environment_of(stateful_set["spec"]["template"]["spec"]["containers"][0])


def environment_of(container):
    names = [one["name"] for one in container["env"]]
    demand(len(names) == len(set(names)), "a variable stands twice")
    return {one["name"]: one.get("value", "") for one in container["env"]}


def voters_name(objects):
    return next(name for kind, name in objects if kind == "StatefulSet" and not name.endswith("-gateway"))


def normal_form(objects):
    """The objects in a stable order; long texts that are files of the chart by their digest."""
    objects = copy.deepcopy(objects)
    for one in objects.values():
        if one["kind"] == "ConfigMap":
            one["data"] = {name: digest(text) for name, text in one["data"].items()}
        if one["kind"] == "PrometheusRule":
            one["spec"] = digest(json.dumps(one["spec"], sort_keys=True))
    return "---\n".join(yaml.safe_dump(objects[key], sort_keys=True, width=120) for key in sorted(objects))


def digest(text):
    return "sha256 " + hashlib.sha256(text.encode()).hexdigest()
