"""Volumes, claims, classes and drivers."""

from __future__ import annotations

from kubelore.resource_ops.printers.formats import Cells, Object, Printer, age, columns, items, name_of, part

_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_CLASS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def _access_modes(of: Object) -> str:
    modes = items(of, "accessModes")
    return ",".join(short for mode, short in _MODES.items() if mode in modes)


def _class_of(of: Object) -> str:
    old = part(of, "metadata", "annotations").get(_OLD_CLASS)
    return old if old is not None else part(of, "spec").get("storageClassName") or ""


def _phase(of: Object) -> str:
    return (
        "Terminating"
        if part(of, "metadata").get("deletionTimestamp")
        else part(of, "status").get("phase", "")
    )


def _or_unset(of: Object, key: str) -> str:
    return "<unset>" if of.get(key) is None else of[key]


def _volume(of: Object, now: float) -> Cells:
    spec = part(of, "spec")
    claim = spec.get("claimRef")
    return [
        name_of(of),
        part(spec, "capacity").get("storage", "0"),
        _access_modes(spec),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(of),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _class_of(of),
        _or_unset(spec, "volumeAttributesClassName"),
        part(of, "status").get("reason", ""),
        age(of, now),
        _or_unset(spec, "volumeMode"),
    ]


def _claim(of: Object, now: float) -> Cells:
    spec, status = part(of, "spec"), part(of, "status")
    volume = spec.get("volumeName", "")
    return [
        name_of(of),
        _phase(of),
        volume,
        part(status, "capacity").get("storage", "0") if volume else "",
        _access_modes(status) if volume else "",
        _class_of(of),
        _or_unset(spec, "volumeAttributesClassName"),
        age(of, now),
        _or_unset(spec, "volumeMode"),
    ]


def _storage_class(of: Object, now: float) -> Cells:
    annotations = part(of, "metadata", "annotations")
    default = any(annotations.get(key) == "true" for key in _DEFAULT_CLASS)
    return [
        f"{name_of(of)} (default)" if default else name_of(of),
        of.get("provisioner", ""),
        of.get("reclaimPolicy", "Delete"),
        of.get("volumeBindingMode", "Immediate"),
        of.get("allowVolumeExpansion", False),
        age(of, now),
    ]


def _attributes_class(of: Object, now: float) -> Cells:
    return [name_of(of), of.get("driverName", ""), age(of, now)]


def _attachment(of: Object, now: float) -> Cells:
    spec = part(of, "spec")
    return [
        name_of(of),
        spec.get("attacher", ""),
        part(spec, "source").get("persistentVolumeName", ""),
        spec.get("nodeName", ""),
        part(of, "status").get("attached", False),
        age(of, now),
    ]


def _csi_node(of: Object, now: float) -> Cells:
    return [name_of(of), len(items(part(of, "spec"), "drivers")), age(of, now)]


def _csi_driver(of: Object, now: float) -> Cells:
    spec = part(of, "spec")
    requests = spec.get("tokenRequests")
    audiences = ",".join(request.get("audience", "") for request in requests or ())
    return [
        name_of(of),
        spec.get("attachRequired", True),
        spec.get("podInfoOnMount", False),
        spec.get("storageCapacity", False),
        "<unset>" if requests is None else audiences,
        spec.get("requiresRepublish", False),
        ",".join(items(spec, "volumeLifecycleModes")) or "<none>",
        age(of, now),
    ]


STORAGE: dict[str, Printer] = {
    "persistentvolumes": Printer(
        columns(
            "Name",
            "Capacity",
            "Access Modes",
            "Reclaim Policy",
            "Status",
            "Claim",
            "StorageClass",
            "VolumeAttributesClass",
            "Reason",
            "Age",
            "VolumeMode+",
        ),
        _volume,
    ),
    "persistentvolumeclaims": Printer(
        columns(
            "Name",
            "Status",
            "Volume",
            "Capacity",
            "Access Modes",
            "StorageClass",
            "VolumeAttributesClass",
            "Age",
            "VolumeMode+",
        ),
        _claim,
    ),
    "storageclasses.storage.k8s.io": Printer(
        columns("Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"),
        _storage_class,
    ),
    "volumeattributesclasses.storage.k8s.io": Printer(
        columns("Name", "DriverName", "Age"), _attributes_class
    ),
    "volumeattachments.storage.k8s.io": Printer(
        columns("Name", "Attacher", "PV", "Node", "Attached:boolean", "Age"), _attachment
    ),
    "csinodes.storage.k8s.io": Printer(columns("Name", "Drivers:integer", "Age"), _csi_node),
    "csidrivers.storage.k8s.io": Printer(
        columns(
            "Name",
            "AttachRequired:boolean",
            "PodInfoOnMount:boolean",
            "StorageCapacity:boolean",
            "TokenRequests",
            "RequiresRepublish:boolean",
            "Modes",
            "Age",
        ),
        _csi_driver,
    ),
}
