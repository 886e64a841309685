"""The manifests for Kubernetes, made by kustomize and by Helm with different values."""

import ipaddress
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from milepost import __version__, config, telemetry
from milepost.domain import callback_url
from tests import monitoring
from tests.deploy import tools

EVERYTHING: Final[dict[str, Any]] = {
    "image": {"digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"REFLECTION": "false", "TRACE_SAMPLE_RATIO": "0.05"},
    "database": {"ownerSecretName": "milepost-database-owner"},
    "webhookKeys": {"secretName": "milepost-webhook-keys"},
    "limits": {"secretName": "milepost-limits", "key": "url"},
    "stopping": {"notReadySeconds": 5, "drainSeconds": 60},
    "networkPolicy": {
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}], "ports": [{"port": 5432}]}]
    },
    "serviceMonitor": {"enabled": True},
    "podAnnotations": {"example.com/owner": "operations"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}
LITTLE: Final = {
    "autoscaling": {"enabled": False},
    "migration": {"enabled": False},
    "networkPolicy": {"enabled": False},
}
VALUES: Final[dict[str, dict[str, Any]]] = {
    "helm": {},
    "helm, everything": EVERYTHING,
    "helm, little": LITTLE,
    "helm, by CPU": {"autoscaling": {"activeOperations": 0}},
}
ALWAYS: Final = {"ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"}
USUAL: Final = ALWAYS | {"HorizontalPodAutoscaler", "Job", "NetworkPolicy"}
KINDS: Final = {
    "base": USUAL | {"CronJob"},
    "example": USUAL | {"CronJob", "Namespace", "ServiceMonitor"},
    "helm": USUAL,
    "helm, everything": USUAL | {"CronJob", "ServiceMonitor"},
    "helm, little": ALWAYS,
    "helm, by CPU": USUAL,
}
"""The kinds of objects of each variant."""
USER: Final = 10001
SECRETS: Final = {"MILEPOST_DATABASE_URL", "MILEPOST_WEBHOOK_KEYS", "MILEPOST_LIMITS_URL"}
SAMPLE: Final = {"MILEPOST_DATABASE_URL": "postgresql+psycopg://milepost@db/milepost"}


def rendered(folder: Path, values: dict[str, Any]) -> str:
    """Return what Helm makes of the chart with these values."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return tools.run(
        "helm",
        *("template", "milepost", tools.CHART, "--namespace", "milepost", "--values", file),
        *("--kube-version", tools.RELEASES[-1]),
    )


@pytest.fixture(scope="module", params=KINDS)
def variant(request: pytest.FixtureRequest) -> str:
    """The name of a variant."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def text(variant: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The manifests, as they would be applied."""
    if variant in VALUES:
        return rendered(tmp_path_factory.mktemp("values"), VALUES[variant])
    return tools.run("kustomize", "build", tools.KUBERNETES / variant)


@pytest.fixture(scope="module")
def manifests(text: str) -> list[dict[str, Any]]:
    """The objects of the manifests."""
    return tools.objects(text)


@pytest.fixture(scope="module")
def deployment(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """The specification of the deployment."""
    (found,) = tools.of_kind(manifests, "Deployment")
    specification: dict[str, Any] = found["spec"]
    return specification


@pytest.fixture(scope="module")
def workloads(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The specifications of the pods of the service and of its jobs."""
    jobs = [each["spec"]["jobTemplate"] for each in tools.of_kind(manifests, "CronJob")]
    kinds = [each for kind in ("Deployment", "Job") for each in tools.of_kind(manifests, kind)]
    return [each["spec"]["template"]["spec"] for each in kinds + jobs]


def settings(manifests: list[dict[str, Any]]) -> dict[str, str]:
    """Return the variables of the deployment that are no secrets."""
    (content,) = tools.of_kind(manifests, "ConfigMap")
    variables: dict[str, str] = content["data"]
    return variables


def test_every_object_is_there(variant, manifests):
    """Budget, autoscaler, policy and migration are there, unless the values leave them out."""
    assert {each["kind"] for each in manifests} == KINDS[variant]


@pytest.mark.parametrize("release", tools.RELEASES)
def test_manifests_fit_the_schemas(text, release):
    """Every object fits the schema of its kind, without an unknown field."""
    code, report = tools.conformity(text, release)
    assert code == 0, report
    assert "Invalid: 0, Errors: 0" in report


@pytest.mark.parametrize(
    "change", [("maxSurge", "maxSurges"), ("containerPort: 7450", "containerPort: no")]
)
def test_unknown_fields_are_found(text, change):
    """A field with a wrong name, or with a wrong value, is found."""
    assert change[0] in text
    code, report = tools.conformity(text.replace(*change), tools.RELEASES[-1])
    assert code != 0
    assert "Invalid: 1, Errors: 0" in report


def test_settings_are_accepted(manifests, workloads, monkeypatch):
    """Every variable of a pod is a setting, and the service accepts the values."""
    known = {f"{config.PREFIX}{name.upper()}" for name in config.Settings.model_fields}
    values = settings(manifests)
    for pod in workloads:
        (container,) = pod["containers"]
        own = {each["name"]: each.get("value", "") for each in container["env"]}
        own |= values if "envFrom" in container else {}
        assert set(own) <= known
        with monkeypatch.context() as variables:
            for name, value in {**own, **SAMPLE}.items():
                variables.setenv(name, value)
            assert not config.load().embedded


def test_secrets_are_references(manifests, workloads):
    """Secrets are references: no manifest has one, and every pod takes its own from there."""
    assert not list(tools.of_kind(manifests, "Secret"))
    assert not SECRETS & set(settings(manifests))
    for pod in workloads:
        secret = {e["name"]: e for e in pod["containers"][0]["env"] if e["name"] in SECRETS}
        assert "MILEPOST_DATABASE_URL" in secret
        assert all("secretKeyRef" in each["valueFrom"] for each in secret.values())


def test_migration_needs_only_its_secret(manifests):
    """The migration can run before every other object exists, apart from its secret."""
    for job in tools.of_kind(manifests, "Job"):
        pod = job["spec"]["template"]["spec"]
        assert not {"serviceAccountName", "volumes"} & set(pod)
        assert "envFrom" not in pod["containers"][0]


def test_pods_are_restricted(workloads):
    """Pods run as the user of the image, on a read-only root, without rights and tokens."""
    for pod in workloads:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == USER
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_pods_have_time_to_stop(manifests, deployment):
    """A pod is killed no earlier than 10 s after its time to report not ready and to drain."""
    values = settings(manifests)
    needed = sum(int(values[f"MILEPOST_{name}_SECONDS"]) for name in ("NOT_READY", "DRAIN"))
    assert deployment["template"]["spec"]["terminationGracePeriodSeconds"] == needed + 10
    assert int(values["MILEPOST_NOT_READY_SECONDS"]) > 0


def test_probes_use_the_port_of_the_probes(manifests, deployment):
    """Start, life and readiness are probed on the port that the service has for them."""
    (container,) = deployment["template"]["spec"]["containers"]
    ports = {each["name"]: str(each["containerPort"]) for each in container["ports"]}
    values = settings(manifests)
    assert ports == {
        name: values[f"MILEPOST_{setting}"].rpartition(":")[2]
        for name, setting in {
            "grpc": "LISTEN",
            "http": "HTTP_LISTEN",
            "probes": "PROBES_LISTEN",
        }.items()
    }
    probed = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    for probe, path in probed.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "probes"}


def test_selectors_find_the_pods(manifests, deployment):
    """Services, budget, policy and constraints select the pods of the deployment, and no others."""
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [deployment["selector"]["matchLabels"]]
    selectors += [each["spec"]["selector"] for each in tools.of_kind(manifests, "Service")]
    selectors += [
        each["spec"]["selector"]["matchLabels"]
        for each in tools.of_kind(manifests, "PodDisruptionBudget")
    ]
    selectors += [
        each["spec"]["podSelector"]["matchLabels"]
        for each in tools.of_kind(manifests, "NetworkPolicy")
    ]
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    selectors += [each["labelSelector"]["matchLabels"] for each in spread]
    assert len(selectors) >= len(("deployment", "service", "headless", "budget", "zone", "host"))
    migrations = [
        j["spec"]["template"]["metadata"]["labels"] for j in tools.of_kind(manifests, "Job")
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= each.items() for each in migrations)


def test_one_service_is_headless(manifests):
    """One service has an address, and one gives clients the addresses of the pods."""
    services = list(tools.of_kind(manifests, "Service"))
    assert sorted(each["spec"].get("clusterIP", "") for each in services) == ["", "None"]
    for each in services:
        assert {"name": "grpc", "port": 7450, "targetPort": "grpc"}.items() <= each["spec"][
            "ports"
        ][0].items()


def test_autoscaler_uses_a_metric_of_the_service(variant, manifests):
    """The autoscaler asks for a metric that the service has and that the adapter's rule serves."""
    exported = {family.name for family in telemetry.registry.collect()}
    adapter = yaml.safe_load((tools.KUBERNETES / "prometheus-adapter.yaml").read_text("utf-8"))
    served = {rule["name"]["as"] for rule in adapter["rules"]["external"]}
    for scaler in tools.of_kind(manifests, "HorizontalPodAutoscaler"):
        metrics = scaler["spec"]["metrics"]
        assert [each["type"] for each in metrics][-1] == "Resource"
        asked = {e["external"]["metric"]["name"] for e in metrics if e["type"] == "External"}
        assert asked == (set() if variant == "helm, by CPU" else {"milepost_operations_active"})
        assert asked <= served <= exported
        assert scaler["spec"]["minReplicas"] > 1


def test_webhooks_reach_public_addresses_only(variant, manifests):
    """The policy lets webhooks out to public addresses: the service would refuse all others."""
    blocks = [
        to["ipBlock"]
        for policy in tools.of_kind(manifests, "NetworkPolicy")
        for rule in policy["spec"]["egress"]
        if {"port": 443} in rule["ports"]
        for to in rule["to"]
    ]
    allowed = [ipaddress.ip_network(block["cidr"]) for block in blocks]
    excepted = [ipaddress.ip_network(each) for block in blocks for each in block["except"]]
    for network, _ in callback_url._REFUSED:
        inside = [each for each in allowed if _within(network, each)]
        assert not allowed or not inside or any(_within(network, each) for each in excepted), (
            network
        )
    public = {"0.0.0.0/0", str(callback_url._GLOBAL_IPV6)}
    assert {str(each) for each in allowed} == (
        public if "NetworkPolicy" in KINDS[variant] else set()
    )


def _within(network: Any, other: Any) -> bool:
    return network.version == other.version and bool(network.subnet_of(other))


def test_rule_of_the_adapter_is_a_query(tmp_path):
    """The rule of prometheus-adapter is a valid query of Prometheus."""
    adapter = yaml.safe_load((tools.KUBERNETES / "prometheus-adapter.yaml").read_text("utf-8"))
    query = adapter["rules"]["external"][0]["metricsQuery"]
    rule = {"record": "a:b", "expr": query.replace("<<.LabelMatchers>>", 'namespace="milepost"')}
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": [rule]}]}))
    assert "1 rules found" in monitoring.run_promtool("check", "rules", path)


# --- the chart ---


def test_chart_has_no_complaint():
    """Helm finds nothing wrong with the chart."""
    report = tools.run("helm", "lint", "--strict", tools.CHART)
    assert "0 chart(s) failed" in report
    assert not re.search(r"\[(WARNING|ERROR)\]", report)


def test_chart_has_the_version_of_the_service():
    """The chart installs the release of the service that it belongs to."""
    chart = yaml.safe_load((tools.CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == __version__


@pytest.mark.parametrize(
    "values",
    [
        {"autoscaler": {"enabled": True}},
        {"stopping": {"drainSeconds": "20s"}},
        {"settings": {"DATABASE_URL": "postgresql+psycopg://milepost:secret@db/milepost"}},
        {"settings": {"DRAIN_SECONDS": "5"}},
        {"image": {"digest": "latest"}},
    ],
)
def test_wrong_values_are_refused(tmp_path, values):
    """Unknown values, and settings that the chart makes itself, are refused."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    code, report = tools.attempt("helm", "template", tools.CHART, "--values", file)
    assert code != 0
    wrong = next(iter(values))
    assert wrong in report or str(next(iter(values[wrong]))) in report


def test_tls_comes_from_its_secret(tmp_path, monkeypatch):
    """With a secret for TLS, the pods mount it and serve no plaintext; the jobs need none."""
    with_tls = {**EVERYTHING, "tls": {"secretName": "milepost-tls"}}
    manifests = tools.objects(rendered(tmp_path, with_tls))
    (deployment,) = tools.of_kind(manifests, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    values = settings(manifests)
    assert values["MILEPOST_TLS_CERT_FILE"].startswith(mount["mountPath"])
    assert values["MILEPOST_TLS_KEY_FILE"].startswith(mount["mountPath"])
    assert "MILEPOST_ALLOW_PLAINTEXT" not in values
    assert pod["volumes"][0]["secret"]["secretName"] == "milepost-tls"
    (job,) = tools.of_kind(manifests, "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    own = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    for name, value in {**values, **own, **SAMPLE}.items():
        monkeypatch.setenv(name, value)
    assert config.load().tls_cert_file is None


def test_migration_precedes_the_release(tmp_path):
    """The hook migrates before the objects of the chart exist, with the owner's secret."""
    manifests = tools.objects(rendered(tmp_path, EVERYTHING))
    (job,) = tools.of_kind(manifests, "Job")
    (maintenance,) = tools.of_kind(manifests, "CronJob")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    owner = container["env"][-1]["valueFrom"]["secretKeyRef"]["name"]
    assert owner == EVERYTHING["database"]["ownerSecretName"]
    assert owner in str(maintenance["spec"]["jobTemplate"])
