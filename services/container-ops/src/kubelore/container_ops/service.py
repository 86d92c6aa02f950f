"""The bus endpoints of container-ops: one line to the domain each."""

from __future__ import annotations

from kubelore.common.bus import Bus, Service
from kubelore.common.contracts import (
    container_history,
    containers,
    exec_policies,
    execution,
    files,
    log_search,
)
from kubelore.container_ops.exec_policy import ExecPolicies
from kubelore.container_ops.execution import Execution
from kubelore.container_ops.files import Files
from kubelore.container_ops.finding import Finding
from kubelore.container_ops.log_search import LogSearch
from kubelore.container_ops.past_operations import PastOperations
from kubelore.container_ops.pods import Pods

VERSION = "0.1.0"


def endpoints(bus: Bus, pods: Pods) -> Service:
    """The ADR-32 service: any replica answers."""
    service = Service(bus, containers.SERVICE, VERSION)
    service.serve(containers.CONTAINERS, pods.containers)
    return service


def serve_history(service: Service, past: PastOperations, policies: ExecPolicies) -> None:
    """The endpoints about what was done in containers, and about what may be."""
    service.serve(container_history.LIST_OPERATIONS, past.list, max_concurrent=8)
    service.serve(container_history.GET_OPERATION, past.get)
    service.serve(exec_policies.LIST_EXEC_POLICIES, policies.list)
    service.serve(exec_policies.GET_EXEC_POLICY, policies.get)
    service.serve(exec_policies.PUT_EXEC_POLICY, policies.put)
    service.serve(exec_policies.DELETE_EXEC_POLICY, policies.delete)


def serve_files(service: Service, work: Files) -> None:
    """The endpoints about files in containers."""
    service.serve(files.LIST_FILES, work.list, max_concurrent=32)
    service.serve(files.READ_CONTENT, work.read, max_concurrent=32)
    service.serve(files.WRITE_CONTENT, work.write, max_concurrent=32)
    service.serve(files.CHANGE_FILE, work.change)


def serve_execution(service: Service, running: Execution, finding: Finding) -> None:
    """The endpoints that run commands."""
    service.serve(execution.EXEC, running.start)
    service.serve(execution.DEBUG, running.debug, max_concurrent=8)
    service.serve(execution.FIND_CONTAINERS, finding.find, max_concurrent=8)


def serve_log_search(service: Service, search: LogSearch) -> None:
    """The endpoints that find lines of logs."""
    service.serve(log_search.SEARCH_LOGS, search.search, max_concurrent=4)
    service.serve(log_search.COUNT_LOGS, search.count, max_concurrent=2)
