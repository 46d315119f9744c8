"""Kubernetes: all fields of the manifests exist, and the probe does what it is there for. No cluster runs."""

import json
import os
import shutil
import subprocess
from typing import Any, TypeAlias

import pytest

from greeter_trio._cli import options as _arguments
from tests.cli.helpers import PATIENCE, environment, run, serving

from .helpers import FOLDER

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl on PATH")

Object: TypeAlias = Any  # of JSON


def kubectl(manifest: str, *command: str) -> Object:
    """Have kubectl change a manifest, without any cluster, and return what it has made of it."""
    done = subprocess.run(
        ["kubectl", *command, "--local", "--dry-run=client", "--output=json", "--filename=-"],
        input=manifest,
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere", "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def missing(whole: Object, part: Object, path: str = "") -> list[str]:
    """Return the paths of everything that is not in the part."""
    match whole, part:
        case dict(), dict():
            return [
                each
                for key in whole
                for each in missing(whole[key], part.get(key), f"{path}.{key}")
            ]
        case list(), list() if len(whole) == len(part):
            pairs = enumerate(zip(whole, part, strict=True))
            return [each for n, pair in pairs for each in missing(*pair, f"{path}.{n}")]
    return [] if whole == part else [path]


@pytest.fixture(scope="module")
def manifests() -> tuple[str, str]:
    """Return the manifests of the Deployment and of the Service."""
    deployment, service = (FOLDER / "kubernetes.yaml").read_text("utf-8").split("\n---\n")
    return deployment, service


@pytest.fixture(scope="module")
def pod(manifests: tuple[str, str]) -> Object:
    """Return the specification of the pod."""
    return kubectl(manifests[0], "label", "a=b")["spec"]["template"]["spec"]


def test_all_fields_are_known(manifests: tuple[str, str]) -> None:
    """kubectl, where it knows what a Deployment and a Service are, finds no field that has no place in them."""
    deployment, service = manifests
    for manifest, command in (
        (deployment, ("set", "env", "A=b")),
        (service, ("set", "selector", "app=greeter")),
    ):
        # `label` takes whatever there is; the others drop what they do not know, and refuse what
        # has a wrong type.
        everything, known = kubectl(manifest, "label", "a=b"), kubectl(manifest, *command)
        assert missing(everything["spec"], known["spec"]) == []


def test_the_service_finds_the_pods(manifests: tuple[str, str]) -> None:
    """The Service selects the labels of the Deployment's pods, and its port is the container's."""
    deployment, service = (kubectl(each, "label", "a=b")["spec"] for each in manifests)
    template = deployment["template"]
    assert (
        service["selector"]
        == template["metadata"]["labels"]
        == deployment["selector"]["matchLabels"]
    )
    assert [each["port"] for each in service["ports"]] == [
        each["containerPort"] for each in template["spec"]["containers"][0]["ports"]
    ]


def test_there_is_time_to_end(pod: Object) -> None:
    """The server takes less time to end than Kubernetes gives it, and listens where the Service expects it."""
    arguments = _arguments.parse(pod["containers"][0]["args"])
    assert pod["terminationGracePeriodSeconds"] > arguments.drain_delay + arguments.grace
    assert arguments.port == pod["containers"][0]["ports"][0]["containerPort"]


def test_the_probe(pod: Object) -> None:
    """The readiness probe finds a server that greets, and finds that there is none."""
    container = pod["containers"][0]
    probe = container["readinessProbe"]["exec"]["command"]
    assert probe[:3] == container["command"] == ["python", "-m", "greeter_trio"]
    with serving() as server:
        assert run(*probe[3:], env=environment(GREETER_PORT=str(server.port))).returncode == 0
    assert run(*probe[3:], env=environment(GREETER_PORT=str(server.port))).returncode == 1
