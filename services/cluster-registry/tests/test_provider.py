"""Which cloud a cluster runs on."""

import pytest

from kubelore.cluster_registry.provider import detect_provider, detect_region


@pytest.mark.parametrize(
    ("provider_id", "provider"),
    [
        ("aws:///eu-west-1a/i-0abc", "aws"),
        ("gce://project/europe-west1-b/node-1", "google"),
        ("azure:///subscriptions/s/resourceGroups/g/virtualMachines/v", "azure"),
        ("qcloud:///800002/ins-12345", "tencent"),
        ("alicloud://cn-hangzhou.i-bp1", "aliyun"),
        ("cn-hangzhou.i-bp1abc", "aliyun"),
        ("huaweicloud://12345", "huawei"),
        ("k3s://node", "other"),
        ("", "other"),
    ],
)
def test_the_provider_id_of_a_node_tells_the_cloud(provider_id: str, provider: str) -> None:
    assert detect_provider("https://10.0.0.1:6443", [(provider_id, {})]) == provider


@pytest.mark.parametrize(
    ("label", "provider"),
    [
        ("eks.amazonaws.com/nodegroup", "aws"),
        ("cloud.google.com/gke-nodepool", "google"),
        ("kubernetes.azure.com/cluster", "azure"),
        ("alibabacloud.com/nodepool-id", "aliyun"),
        ("cloud.tencent.com/node-instance-id", "tencent"),
        ("cce.cloud.com/cce-nodepool", "huawei"),
        ("node.kubernetes.io/instance-type", "other"),
    ],
)
def test_a_node_without_provider_id_tells_it_by_its_labels(label: str, provider: str) -> None:
    assert detect_provider("https://10.0.0.1", [("", {label: "x"})]) == provider


@pytest.mark.parametrize(
    ("server", "provider"),
    [
        ("https://ABC.gr7.eu-west-1.eks.amazonaws.com", "aws"),
        ("https://ABC.sk1.cn-north-1.eks.amazonaws.com.cn", "aws"),
        ("https://abc.eks-cluster.eu-west-1.api.aws", "aws"),
        ("https://dns-1.hcp.westeurope.azmk8s.io:443", "azure"),
        ("https://dns-1.hcp.chinaeast2.cx.prod.service.azk8s.cn:443", "azure"),
        ("https://gke-abc.europe-west1.gke.goog", "google"),
        ("https://uid.cce.eu-west-101.myhuaweicloud.com:5443", "huawei"),
        ("https://1a2b.cs.cn-hangzhou.aliyuncs.com:6443", "aliyun"),
        ("https://cls-abc.ccs.tencent-cloud.com", "tencent"),
        ("https://1.2.3.4:6443", "other"),
        ("https://eks.amazonaws.com.evil.example", "other"),
    ],
)
def test_the_server_address_tells_it_when_no_node_can_be_seen(server: str, provider: str) -> None:
    assert detect_provider(server) == provider


def test_nodes_are_believed_before_the_address() -> None:
    assert detect_provider("https://x.azmk8s.io", [("aws:///a/i-1", {})]) == "aws"


def test_the_region_is_the_first_that_a_node_names() -> None:
    nodes = [("", {}), ("", {"topology.kubernetes.io/region": "eu-west-1"})]
    assert detect_region(nodes) == "eu-west-1"


def test_there_is_no_region_when_no_node_names_one() -> None:
    assert detect_region([("", {"zone": "a"})]) == ""
