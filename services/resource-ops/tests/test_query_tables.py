"""The table view says what `kubectl get` says. Expected cells are those of the API server's own printers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubelore.common.contracts.resources import ClusterState, Page, Query
from kubelore.common.jsonpath import JsonPath
from kubelore.common.kube.resource_type import PODS, ResourceType
from kubelore.resource_ops.columns import DEFINITIONS
from kubelore.resource_ops.printers.formats import human_duration
from kubelore.resource_ops.query import query
from kubelore.resource_ops.read_model import ReadModel

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
CREATED = "2025-12-31T23:55:00Z"


def _type(name: str, kind: str = "Thing", version: str = "v1") -> ResourceType:
    plural, _, group = name.partition(".")
    return ResourceType(group=group, version=version, plural=plural, kind=kind, namespaced=True)


def _object(name: str = "a", *, metadata: dict[str, Any] | None = None, **body: Any) -> bytes:
    meta = {"name": name, "namespace": "red", "creationTimestamp": CREATED, "resourceVersion": "1"}
    return json.dumps({"metadata": {**meta, **(metadata or {})}, **body}).encode()


def _table(models: ReadModel, *types: str) -> Page:
    def live(cluster: str, types: frozenset[str]) -> ClusterState:
        return ClusterState(name=cluster, status="live")

    return query(
        models, Query(clusters=list(models.clusters), types=list(types), view="table"), live, now=NOW
    )


def _cells(kind: ResourceType, raw: bytes) -> dict[str, Any]:
    models = ReadModel()
    models.open("east").upsert(kind, raw)
    page = _table(models, kind.name)
    (row,) = page.rows
    names = [column.name for column in page.columns]
    cells = json.loads(row.object)
    assert len(cells) == len(names)
    return dict(zip(names, cells, strict=True))


def _running(**more: Any) -> dict[str, Any]:
    return {"name": "main", "ready": True, "restartCount": 0, "state": {"running": {}}, **more}


def _pod(status: dict[str, Any], *, deleted: bool = False, init: list[dict[str, Any]] | None = None) -> bytes:
    spec = {
        "containers": [{"name": "main"}, {"name": "side"}],
        "initContainers": init or [],
        "nodeName": "n1",
    }
    metadata = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}
    return _object(metadata=metadata, spec=spec, status=status)


READY = [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]
INIT = [{"name": "one"}, {"name": "two"}]


@pytest.mark.parametrize(
    ("pod", "ready", "status", "restarts"),
    [
        (_pod({"phase": "Pending"}), "0/2", "Pending", "0"),
        (_pod({"phase": "Running", "containerStatuses": [_running(), _running()]}), "2/2", "Running", "0"),
        (
            _pod({"phase": "Running", "containerStatuses": [_running()]}, deleted=True),
            "1/2",
            "Terminating",
            "0",
        ),
        (_pod({"phase": "Succeeded"}, deleted=True), "0/2", "Succeeded", "0"),
        (_pod({"phase": "Running", "reason": "NodeLost"}, deleted=True), "0/2", "Unknown", "0"),
        (_pod({"phase": "Failed", "reason": "Evicted"}), "0/2", "Evicted", "0"),
        (
            _pod({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "0/2",
            "SchedulingGated",
            "0",
        ),
        (
            _pod(
                {
                    "phase": "Running",
                    "containerStatuses": [
                        _running(
                            ready=False,
                            restartCount=7,
                            state={"waiting": {"reason": "CrashLoopBackOff"}},
                            lastState={"terminated": {"finishedAt": "2025-12-31T23:58:00Z"}},
                        )
                    ],
                }
            ),
            "0/2",
            "CrashLoopBackOff",
            "7 (2m ago)",
        ),
        (
            _pod(
                {"phase": "Running", "containerStatuses": [_running(state={"terminated": {"exitCode": 3}})]}
            ),
            "0/2",
            "ExitCode:3",
            "0",
        ),
        (
            _pod({"phase": "Running", "containerStatuses": [_running(state={"terminated": {"signal": 9}})]}),
            "0/2",
            "Signal:9",
            "0",
        ),
        (
            _pod(
                {
                    "phase": "Running",
                    "conditions": READY,
                    "containerStatuses": [
                        _running(state={"terminated": {"reason": "Completed", "exitCode": 0}}),
                        _running(),
                    ],
                }
            ),
            "1/2",
            "Running",
            "0",
        ),
        (
            _pod(
                {
                    "phase": "Running",
                    "containerStatuses": [
                        _running(state={"terminated": {"reason": "Completed"}}),
                        _running(),
                    ],
                }
            ),
            "1/2",
            "NotReady",
            "0",
        ),
        (
            _pod(
                {"phase": "Pending", "initContainerStatuses": [{"name": "one", "state": {"running": {}}}]},
                init=INIT,
            ),
            "0/2",
            "Init:0/2",
            "0",
        ),
        (
            _pod(
                {
                    "phase": "Pending",
                    "initContainerStatuses": [
                        {"name": "one", "state": {"terminated": {"exitCode": 0}}},
                        {
                            "name": "two",
                            "restartCount": 4,
                            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        },
                    ],
                },
                init=INIT,
            ),
            "0/2",
            "Init:CrashLoopBackOff",
            "4",
        ),
        (
            _pod(
                {
                    "phase": "Pending",
                    "initContainerStatuses": [{"name": "one", "state": {"terminated": {"exitCode": 2}}}],
                },
                init=INIT,
            ),
            "0/2",
            "Init:ExitCode:2",
            "0",
        ),
        (
            _pod(
                {
                    "phase": "Running",
                    "initContainerStatuses": [
                        {
                            "name": "side",
                            "started": True,
                            "ready": True,
                            "restartCount": 2,
                            "state": {"running": {}},
                        }
                    ],
                    "containerStatuses": [_running(restartCount=1)],
                },
                init=[{"name": "side", "restartPolicy": "Always"}],
            ),
            "2/3",
            "Running",
            "3",
        ),
    ],
)
def test_a_pod(pod: bytes, ready: str, status: str, restarts: str):
    cells = _cells(PODS, pod)
    assert (cells["Ready"], cells["Status"], cells["Restarts"]) == (ready, status, restarts)
    assert (cells["Name"], cells["Age"], cells["Node"], cells["IP"]) == ("a", "5m", "n1", "<none>")


SELECTOR = {
    "matchLabels": {"b": "1"},
    "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}],
}
TEMPLATE = {
    "spec": {"containers": [{"name": "main", "image": "nginx:1"}, {"name": "log", "image": "vector:2"}]}
}


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        (
            "deployments.apps",
            _object(
                spec={"replicas": 3, "selector": SELECTOR, "template": TEMPLATE},
                status={"readyReplicas": 2, "updatedReplicas": 3},
            ),
            {
                "Ready": "2/3",
                "Up-to-date": 3,
                "Available": 0,
                "Age": "5m",
                "Containers": "main,log",
                "Images": "nginx:1,vector:2",
                "Selector": "a in (x,y),b=1",
            },
        ),
        ("statefulsets.apps", _object(spec={"replicas": 0}, status={}), {"Ready": "0/0"}),
        (
            "daemonsets.apps",
            _object(
                spec={"template": {"spec": {"nodeSelector": {"z": "1", "a": "2"}}}}, status={"numberReady": 4}
            ),
            {"Desired": 0, "Ready": 4, "Node Selector": "a=2,z=1", "Selector": "<none>"},
        ),
        (
            "jobs.batch",
            _object(
                spec={"completions": 5},
                status={
                    "succeeded": 2,
                    "startTime": "2025-12-31T23:50:00Z",
                    "conditions": [{"type": "Suspended", "status": "True"}],
                },
            ),
            {"Status": "Suspended", "Completions": "2/5", "Duration": "10m"},
        ),
        (
            "jobs.batch",
            _object(spec={"parallelism": 3}, status={}),
            {"Status": "Running", "Completions": "0/1 of 3", "Duration": ""},
        ),
        (
            "cronjobs.batch",
            _object(
                spec={"schedule": "* * * * *", "suspend": False},
                status={"active": [{}], "lastScheduleTime": "2025-12-31T23:59:30Z"},
            ),
            {"Suspend": "False", "Active": 1, "Last Schedule": "30s", "Timezone": "<none>"},
        ),
        (
            "services",
            _object(
                spec={
                    "type": "NodePort",
                    "clusterIPs": ["10.0.0.1"],
                    "ports": [
                        {"port": 80, "nodePort": 30080, "protocol": "TCP"},
                        {"port": 53, "protocol": "UDP"},
                    ],
                    "selector": {"app": "web"},
                }
            ),
            {
                "Type": "NodePort",
                "Cluster-IP": "10.0.0.1",
                "External-IP": "<none>",
                "Port(s)": "80:30080/TCP,53/UDP",
                "Selector": "app=web",
            },
        ),
        (
            "services",
            _object(spec={"type": "LoadBalancer"}),
            {"External-IP": "<pending>", "Port(s)": "<none>"},
        ),
        (
            "services",
            _object(spec={"type": "ExternalName", "externalName": "db.example.com"}),
            {"Cluster-IP": "<none>", "External-IP": "db.example.com"},
        ),
        (
            "endpoints",
            _object(
                subsets=[{"addresses": [{"ip": f"10.0.0.{n}"} for n in range(5)], "ports": [{"port": 80}]}],
            ),
            {"Endpoints": "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more..."},
        ),
        (
            "ingresses.networking.k8s.io",
            _object(spec={"rules": [{"host": f"h{n}"} for n in range(5)], "tls": [{}]}, status={}),
            {"Class": "<none>", "Hosts": "h0,h1,h2 + 2 more...", "Ports": "80, 443", "Address": ""},
        ),
        (
            "nodes",
            _object(
                metadata={
                    "namespace": "",
                    "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"},
                },
                spec={"unschedulable": True},
                status={
                    "conditions": [{"type": "Ready", "status": "Unknown"}],
                    "nodeInfo": {"kubeletVersion": "v1.34.4"},
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.9"}],
                },
            ),
            {
                "Status": "NotReady,SchedulingDisabled",
                "Roles": "control-plane,x",
                "Version": "v1.34.4",
                "Internal-IP": "10.0.0.9",
                "External-IP": "<none>",
                "OS-Image": "<unknown>",
            },
        ),
        (
            "persistentvolumeclaims",
            _object(
                spec={"volumeName": "pv-1", "storageClassName": "fast"},
                status={"phase": "Bound", "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"]},
            ),
            {"Status": "Bound", "Capacity": "5Gi", "Access Modes": "RWO", "StorageClass": "fast"},
        ),
        (
            "resourcequotas",
            _object(
                status={"hard": {"pods": "10", "limits.cpu": "4"}, "used": {"pods": "3", "limits.cpu": "1"}},
            ),
            {"Request": "pods: 3/10", "Limit": "limits.cpu: 1/4"},
        ),
        (
            "horizontalpodautoscalers.autoscaling",
            _object(
                spec={
                    "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                    "maxReplicas": 9,
                    "metrics": [
                        {
                            "type": "Resource",
                            "resource": {"name": "cpu", "target": {"averageUtilization": 80}},
                        }
                    ],
                },
                status={"currentReplicas": 2},
            ),
            {
                "Reference": "Deployment/web",
                "Targets": "cpu: <unknown>/80%",
                "MinPods": "<unset>",
                "Replicas": 2,
            },
        ),
        (
            "events",
            _object(
                involvedObject={"kind": "Pod", "name": "web-1"},
                reason="BackOff",
                type="Warning",
                message=" Back-off \n",
                count=4,
                firstTimestamp="2025-12-31T23:00:00Z",
                lastTimestamp="2025-12-31T23:59:59Z",
                source={"component": "kubelet", "host": "n1"},
            ),
            {
                "Last Seen": "1s",
                "Object": "pod/web-1",
                "Message": "Back-off",
                "Source": "kubelet, n1",
                "First Seen": "60m",
                "Count": 4,
            },
        ),
        ("configmaps", _object(data={"a": "", "b": ""}, binaryData={"c": ""}), {"Data": 3, "Age": "5m"}),
        ("roles.rbac.authorization.k8s.io", _object(), {"Created At": CREATED}),
        ("limitranges", _object(), {"Created At": CREATED}),
        (
            "flowschemas.flowcontrol.apiserver.k8s.io",
            _object(
                spec={
                    "priorityLevelConfiguration": {"name": "exempt"},
                    "matchingPrecedence": 1,
                    "distinguisherMethod": {"type": "ByUser"},
                },
                status={"conditions": [{"type": "Dangling", "status": "False"}]},
            ),
            {
                "PriorityLevel": "exempt",
                "MatchingPrecedence": 1,
                "DistinguisherMethod": "ByUser",
                "MissingPL": "False",
            },
        ),
        (
            "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
            _object(
                spec={
                    "type": "Limited",
                    "limited": {
                        "nominalConcurrencyShares": 20,
                        "limitResponse": {
                            "queuing": {"queues": 128, "handSize": 6, "queueLengthLimit": 50},
                            "type": "Queue",
                        },
                    },
                }
            ),
            {
                "Type": "Limited",
                "NominalConcurrencyShares": 20,
                "Queues": 128,
                "HandSize": 6,
                "QueueLengthLimit": 50,
            },
        ),
        (
            "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
            _object(spec={"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0}}),
            {"NominalConcurrencyShares": "<none>", "Queues": "<none>", "HandSize": "<none>"},
        ),
        (
            "validatingadmissionpolicies.admissionregistration.k8s.io",
            _object(spec={"validations": [{"expression": "true"}]}),
            {"Validations": 1, "ParamKind": "<unset>"},
        ),
        ("gadgets.example.com", _object(spec={}), {"Name": "a", "Age": "5m"}),
    ],
)
def test_a_built_in_type(kind: str, raw: bytes, expected: dict[str, Any]):
    cells = _cells(_type(kind), raw)
    assert {name: cells[name] for name in expected} == expected


def test_a_custom_type_is_printed_by_its_definition():
    columns = [
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Renewed", "type": "date", "jsonPath": ".status.renewed"},
        {"name": "Paused", "type": "boolean", "jsonPath": ".spec.paused", "priority": 1},
    ]
    version = {"name": "v2", "additionalPrinterColumns": columns}
    definition = _object(
        "widgets.example.com", metadata={"namespace": ""}, spec={"versions": [{"name": "v1"}, version]}
    )
    models = ReadModel()
    model = models.open("east")
    model.upsert(_type(DEFINITIONS), definition)
    status = {"conditions": [{"type": "Ready", "status": "False"}], "renewed": "2025-12-31T00:00:00Z"}
    model.upsert(_type("widgets.example.com", version="v2"), _object(spec={"replicas": 3}, status=status))
    page = _table(models, "widgets")
    assert [(c.name, c.priority) for c in page.columns][-2:] == [("Renewed", 0), ("Paused", 1)]
    assert json.loads(page.rows[0].object) == ["a", "False", 3, "24h", None]


@pytest.mark.parametrize(
    ("written", "shown"), [("2025-12-31T00:00:00Z", "24h"), ("", "<unknown>"), ("soon", "<invalid>")]
)
def test_a_custom_date_that_is_none_is_told_apart_from_one_that_is_absent(written: str, shown: str):
    column = {"name": "Due", "type": "date", "jsonPath": ".spec.due"}
    versions = [{"name": "v1", "additionalPrinterColumns": [column]}]
    definition = _object("widgets.example.com", metadata={"namespace": ""}, spec={"versions": versions})
    models = ReadModel()
    model = models.open("east")
    model.upsert(_type(DEFINITIONS), definition)
    model.upsert(_type("widgets.example.com"), _object(spec={"due": written}))
    assert json.loads(_table(models, "widgets").rows[0].object) == ["a", shown]


def test_several_types_show_what_all_of_them_have():
    models = ReadModel()
    models.open("east").upsert(PODS, _object("p"))
    models.open("east").upsert(_type("services"), _object("s", spec={}))
    page = _table(models, "pods,services")
    assert [column.name for column in page.columns] == ["Type", "Name", "Age"]
    assert [json.loads(row.object) for row in page.rows] == [["pods", "p", "5m"], ["services", "s", "5m"]]


def test_what_is_not_held_is_not_invented():
    models = ReadModel()
    model = models.open("east")
    model.upsert(PODS, _pod({"phase": "Running"}))
    model.hold_metadata_only(PODS)
    assert json.loads(_table(models, "pods").rows[0].object) == [
        "a",
        None,
        None,
        None,
        "5m",
        None,
        None,
        None,
        None,
    ]


def test_an_object_in_a_shape_its_type_does_not_allow_still_has_a_row():
    cells = _cells(_type("services"), _object(spec={"ports": 7}))
    assert (cells["Name"], cells["Type"], cells["Age"]) == ("a", None, "5m")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (179, "2m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600, "8h"),
        (48 * 3600 - 1, "47h"),
        (49 * 3600, "2d1h"),
        (8 * 86400, "8d"),
        (2 * 365 * 86400 - 1, "729d"),
        (2 * 365 * 86400, "2y"),
        (2 * 365 * 86400 + 86400, "2y1d"),
        (8 * 365 * 86400 + 86400, "8y"),
    ],
)
def test_ages_are_written_as_kubectl_writes_them(seconds: int, text: str):
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", [1]),
        ("{.a.b}", [1]),
        (".list[0].n", ["x"]),
        (".list[-1].n", ["y"]),
        (".list[*].n", ["x", "y"]),
        (".list[?(@.on==true)].n", ["y"]),
        (".list[?(@.n!='x')].on", [True]),
        (r".dotted\.key", [2]),
        (".['dotted.key']", []),
        ("['dotted.key']", [2]),
        (".absent.b", []),
        (".list[", []),
    ],
)
def test_the_paths_that_definitions_use(path: str, found: list[Any]):
    value = {"a": {"b": 1}, "dotted.key": 2, "list": [{"n": "x"}, {"n": "y", "on": True}]}
    assert JsonPath(path).find(value) == found
