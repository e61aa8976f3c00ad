"""The image, the Compose file, the units and the manifest, held to the security settings they promise.

None of them is built or started here. What can be checked without an engine or a cluster is checked: that no
container may do more than it has to, that every variable exists and has a value the sidecar accepts, that
every path that is mounted or copied is there, and that no service can be reached around its sidecar.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
SYSTEMD = ROOT / "examples" / "systemd"
NOBODY = "65532"

COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SIDECARS = [name for name in SERVICES if name.endswith("-sidecar")]
MANIFEST = {
    document["kind"]: document
    for document in yaml.safe_load_all((ROOT / "examples" / "kubernetes" / "orders.yaml").read_text())
}
POD: dict[str, Any] = MANIFEST["Deployment"]["spec"]["template"]["spec"]
CONTAINERS = {each["name"]: each for each in POD["initContainers"] + POD["containers"]}
UNITS = sorted(SYSTEMD.glob("*.service"))


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Instruction and argument of each logical line."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.startswith("#")]
    logical = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [
        (word.upper(), " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in logical)
    ]


def unit_settings(unit: Path) -> dict[str, list[str]]:
    """Every value of each setting of a unit, in order."""
    values: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            values.setdefault(name, []).append(value)
    return values


def environment_file() -> dict[str, str]:
    lines = (SYSTEMD / "orders.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# -- image
# -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def final_stage() -> list[tuple[str, str]]:
    lines = instructions((DOCKER / "Dockerfile").read_text())
    last = max(index for index, (word, _) in enumerate(lines) if word == "FROM")
    return lines[last:]


def test_the_image_runs_as_nobody(final_stage: list[tuple[str, str]]) -> None:
    words = [word for word, _ in final_stage]
    assert dict(final_stage)["USER"] == f"{NOBODY}:{NOBODY}"
    assert "RUN" not in words[words.index("USER") :]
    assert "COPY" not in words[words.index("USER") :]


def test_the_image_starts_the_sidecar_without_a_shell(final_stage: list[tuple[str, str]]) -> None:
    last = dict(final_stage)
    assert last["ENTRYPOINT"] == '["sidecar"]'
    assert last["CMD"] == '["run"]'
    assert last["HEALTHCHECK"].endswith('CMD ["sidecar", "probe", "readyz"]')


def test_the_image_takes_only_the_finished_environment_from_the_build(
    final_stage: list[tuple[str, str]],
) -> None:
    copies = [rest for word, rest in final_stage if word in ("COPY", "ADD")]
    assert copies == ["--from=build /opt/sidecar /opt/sidecar"]


def test_every_install_is_locked_by_hash_or_offline() -> None:
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    installs = [part for part in re.split(r"&&|\n", text) if " install " in part and "pip" in part]
    assert len(installs) >= 3
    for part in installs:
        assert "--require-hashes" in part or "--no-index" in part, part


def test_everything_that_the_image_copies_is_there_and_let_through() -> None:
    sources = [
        source.rstrip("/")
        for word, rest in instructions((DOCKER / "Dockerfile").read_text())
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    allowed = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in allowed
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in allowed, source


# -- compose
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_do_nothing_that_it_need_not(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == f"{NOBODY}:{NOBODY}"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ports", "devices"} & service.keys()


@pytest.mark.parametrize("name", SIDECARS)
def test_a_service_is_reached_through_its_sidecar_only(name: str) -> None:
    app = SERVICES[name.removesuffix("-sidecar")]
    assert SERVICES[name]["network_mode"] == f"service:{name.removesuffix('-sidecar')}"
    assert "127.0.0.1:8080" in app["entrypoint"]
    assert SERVICES[name]["environment"]["SIDECAR_UPSTREAM"] == "http://127.0.0.1:8080"


def test_the_networks_between_the_containers_lead_nowhere_else() -> None:
    assert all(network["internal"] is True for network in COMPOSE["networks"].values())
    assert SERVICES["issuer"]["network_mode"] == "none"


@pytest.mark.parametrize("name", SIDECARS)
def test_the_settings_of_a_composed_sidecar_are_accepted(name: str) -> None:
    settings = load_settings(SERVICES[name]["environment"])
    assert settings.identity == "files"
    assert str(settings.spiffe_id) == f"spiffe://demo.test/{name.removesuffix('-sidecar')}"


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "issuer"])
def test_a_container_sees_one_svid_at_most_and_mounts_what_exists(name: str) -> None:
    subpaths = []
    for volume in SERVICES[name].get("volumes", []):
        if isinstance(volume, str):
            assert (DOCKER / volume.split(":")[0]).exists(), volume
            assert volume.endswith(":ro")
        elif volume["type"] == "bind":
            assert (DOCKER / volume["source"]).exists(), volume
            assert volume["read_only"] is True
        elif volume["source"] == "issuer":
            assert volume["read_only"] is True
            subpaths.append(volume["volume"]["subpath"])
    assert len(subpaths) <= 1
    assert all(re.fullmatch(r"issuer/svids/[a-z]+", subpath) for subpath in subpaths)


# -- kubernetes
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_of_the_pod_fits_the_restricted_level(name: str) -> None:
    context = CONTAINERS[name]["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert "limits" in CONTAINERS[name]["resources"]
    assert "cpu" not in CONTAINERS[name]["resources"]["limits"]


def test_the_pod_runs_as_nobody_without_a_token() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & POD.keys()
    assert not any("hostPath" in volume for volume in POD["volumes"])


def test_the_sidecar_is_a_native_one_that_gates_and_drains() -> None:
    sidecar = CONTAINERS["sidecar"]
    assert sidecar in POD["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert sidecar["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert sidecar["lifecycle"]["preStop"]["exec"]["command"] == ["sidecar", "drain"]


def test_the_settings_of_the_pods_sidecar_are_accepted_and_outlived_by_the_grace_period() -> None:
    settings = load_settings({each["name"]: each["value"] for each in CONTAINERS["sidecar"]["env"]})
    assert settings.drain_delay_s + settings.drain_deadline_s < POD["terminationGracePeriodSeconds"]
    assert settings.upstream.kind == "unix"


def test_the_pods_service_has_no_port_and_shares_only_a_socket() -> None:
    service = CONTAINERS["orders"]
    assert "ports" not in service
    assert any(word.startswith("unix:/run/orders/") for word in service["command"])
    assert [mount["name"] for mount in service["volumeMounts"]] == ["socket"]


def test_files_that_change_are_never_mounted_by_subpath() -> None:
    mounts = [mount for each in CONTAINERS.values() for mount in each["volumeMounts"]]
    assert not any("subPath" in mount for mount in mounts)
    names = {volume["name"] for volume in POD["volumes"]}
    assert {mount["name"] for mount in mounts} == names


def test_from_outside_only_the_sidecars_ports_are_open() -> None:
    spec = MANIFEST["NetworkPolicy"]["spec"]
    assert spec["podSelector"]["matchLabels"] == MANIFEST["Deployment"]["spec"]["selector"]["matchLabels"]
    assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} == {8443, 9902}


# -- systemd
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_hardened(unit: Path) -> None:
    settings = unit_settings(unit)
    for name, value in {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "StateDirectoryMode": "0700",
    }.items():
        assert settings[name] == [value], name
    assert settings["User"][0] not in ("", "root")


def test_the_units_service_has_no_network() -> None:
    settings = unit_settings(SYSTEMD / "orders.service")
    assert settings["PrivateNetwork"] == ["yes"]
    assert settings["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert "--listen unix:/run/orders/orders.sock" in settings["ExecStart"][0]


def test_the_units_settings_are_accepted_and_outlived_by_the_stop_timeout() -> None:
    settings = load_settings(environment_file())
    unit = unit_settings(SYSTEMD / "orders-sidecar.service")
    assert settings.drain_delay_s + settings.drain_deadline_s < float(
        unit["TimeoutStopSec"][0].removesuffix("s")
    )
    assert unit["RestartPreventExitStatus"] == ["2"]
    assert unit["EnvironmentFile"] == ["/etc/sidecar/orders.env"]


# Not a `peer`: a container in which the tests run rarely has systemd, and there is nothing to compare with.
@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze, not found on the search path"
)
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_the_unit(tmp_path: Path, unit: Path) -> None:
    # The programs named in the units are not installed here: any program that is will do for this check.
    text = (
        unit.read_text()
        .replace("/opt/sidecar/bin/sidecar", sys.executable)
        .replace("/opt/sidecar/bin/python", sys.executable)
    )
    for other in UNITS:
        (tmp_path / other.name).write_text(text if other == unit else "[Service]\nExecStart=/bin/true\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr, done.stderr
