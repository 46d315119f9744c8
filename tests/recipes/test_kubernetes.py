"""Kubernetes: all fields of the manifests exist, and the probe works. No cluster runs."""

import json
import os
from typing import Any, TypeAlias

import pytest

from greeter_trio._cli.options import parse
from greeter_trio._cli.serve_options import ServeOptions
from greeter_trio._net.endpoints import Tcp
from tests.support.processes import COMMAND, environment, run, serving

from .helpers import FOLDER, needs

pytestmark = needs("kubectl")

Object: TypeAlias = Any  # of JSON


def kubectl(manifest: str, *command: str) -> Object:
    """Have kubectl change a manifest, without any cluster, and return the result."""
    local = ("--local", "--dry-run=client", "--output=json", "--filename=-")
    env = environment(HOME="/nowhere", KUBECONFIG=os.devnull)
    done = run(*command, *local, stdin=manifest.encode(), command=("kubectl",), env=env)
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
    """Return those of the Deployment and of the Service."""
    deployment, service = (FOLDER / "kubernetes.yaml").read_text("utf-8").split("\n---\n")
    return deployment, service


@pytest.fixture(scope="module")
def pod(manifests: tuple[str, str]) -> Object:
    """Return the specification of the pod."""
    return kubectl(manifests[0], "label", "a=b")["spec"]["template"]["spec"]


def test_all_fields_are_known(manifests: tuple[str, str]) -> None:
    """Where kubectl knows what a Deployment and a Service are, it drops no field of them."""
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
    deployment, service = (kubectl(each, "label", "a=b")["spec"] for each in manifests)
    template = deployment["template"]
    labels = template["metadata"]["labels"]
    assert service["selector"] == labels == deployment["selector"]["matchLabels"]
    ports = template["spec"]["containers"][0]["ports"]
    assert [each["port"] for each in service["ports"]] == [each["containerPort"] for each in ports]


def test_there_is_time_to_end(pod: Object) -> None:
    """Kubernetes gives more than the server takes, which listens where the Service expects it."""
    container = pod["containers"][0]
    options = parse(container["args"])
    assert isinstance(options, ServeOptions)
    limits = options.limits
    assert pod["terminationGracePeriodSeconds"] > limits.drain_delay + limits.grace
    assert options.endpoints == (Tcp("0.0.0.0", container["ports"][0]["containerPort"]),)


def test_the_probe(pod: Object) -> None:
    """The readiness probe finds a server that greets, and finds that there is none."""
    container = pod["containers"][0]
    probe = container["readinessProbe"]["exec"]["command"]
    assert probe[:3] == container["command"] == ["python", *COMMAND[1:]]
    with serving() as server:
        assert run(*probe[3:], env=environment(GREETER_PORT=str(server.port))).returncode == 0
    assert run(*probe[3:], env=environment(GREETER_PORT=str(server.port))).returncode == 4
