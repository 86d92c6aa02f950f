"""The `kubelore` command: every subcommand is put together here, and every error ends here."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from kubelore.cli import (
    access,
    audit,
    backup,
    backup_policy,
    branch,
    changing,
    clusters,
    compare,
    completion,
    copying,
    describe,
    editing,
    exec_policy,
    execution,
    export,
    files,
    get,
    history,
    keeping,
    keyring,
    log_rules,
    logs,
    operations,
    overview,
    replay,
    restore,
    rollback,
    up,
    verifying,
    watch,
)
from kubelore.cli.connection import ApiError, Target, tell
from kubelore.common.errors import KubeloreError

app = typer.Typer(
    name="kubelore",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    # Plain help: importing what draws boxes would take longer than everything else.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kubelore {version('kubelore-cli')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and end."),
    ] = False,
    url: Annotated[str, typer.Option(envvar="KUBELORE_URL", help="A running Kubelore.")] = "",
    token: Annotated[str, typer.Option(envvar="KUBELORE_TOKEN", help="Its token.")] = "",
    data: Annotated[
        Path | None, typer.Option(envvar="KUBELORE_DATA", help="Data directory of a stack on this machine.")
    ] = None,
    target: Annotated[
        str, typer.Option(envvar="KUBELORE_TARGET", help="A Kubelore that you logged in to, by its name.")
    ] = "",
) -> None:
    """Operate every Kubernetes cluster from one place."""
    context.obj = Target(url, token, data, target)


# The stack on this machine.
app.command("up")(up.up)
app.command("down")(up.down)
app.command("status")(up.status)
app.add_typer(keyring.app, name="keyring")
app.add_typer(audit.app, name="audit")
# Who gets in.
app.command("login")(access.login)
app.command("logout")(access.logout)
app.command("whoami")(access.whoami)
app.add_typer(access.tokens, name="tokens")
# What is in the clusters.
app.add_typer(clusters.app, name="clusters")
app.command("get")(get.get)
app.command("describe")(describe.describe)
app.command("watch")(watch.watch)
app.command("logs")(logs.logs)
app.command("history")(history.history)
app.command("diff")(history.diff)
app.command("blame")(history.blame)
snapshots = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
snapshots.callback()(history.snapshot)
snapshots.command("diff")(rollback.snapshot_diff)
snapshots.command("rollback")(rollback.snapshot_rollback)
app.add_typer(snapshots, name="snapshot")
app.command("export")(export.export)
keeping.app.command()(verifying.verify)
app.add_typer(keeping.app, name="versions")
app.command("tag")(branch.tag)
app.command("tag-namespace")(branch.tag_namespace)
app.command("drift")(branch.drift)
app.add_typer(branch.PLAIN, name="branch")
app.command("compare")(compare.compare)
app.command("summary")(overview.summary)
app.command("api-resources")(overview.api_resources)
app.add_typer(backup.app, name="backup")
backup.app.add_typer(backup_policy.app, name="policy")
backup.app.command("restore")(restore.restore)
app.add_typer(restore.app, name="restore")
app.command("cp")(copying.cp)
# Inside the containers.
app.add_typer(log_rules.policies, name="logs-policy")
app.add_typer(log_rules.alerts, name="logs-alert")
# What is done to it.
app.command("apply")(changing.apply)
app.command("rollback")(rollback.rollback)
app.command("delete")(changing.delete)
app.command("scale")(changing.scale)
app.command("restart")(changing.restart)
app.command("label")(changing.label)
app.command("annotate")(changing.annotate)
app.command("patch")(changing.patch)
app.command("edit")(editing.edit)
app.command("merge")(branch.merge)
rollout = typer.Typer(no_args_is_help=True, help="As kubectl's rollout: restart.", rich_markup_mode=None)
rollout.command("restart")(changing.restart)
rollout.callback()(lambda: None)
app.add_typer(rollout, name="rollout")
# Inside the containers.
app.command("exec")(execution.execute)
app.command("ls")(files.ls)
app.command("edit-file")(files.edit_file)
app.add_typer(files.app, name="files")
app.command("operations")(operations.operations)
app.add_typer(exec_policy.app, name="exec-policy")
# Inside the containers.
app.command("attach")(replay.attach)
app.command("replay")(replay.replay)
# For the shell.
app.command("completion")(completion.completion)


def main() -> None:
    """Run the command of this process's arguments."""
    try:
        app()
    except ApiError as error:
        tell(error.error)
        sys.exit(1)
    except KubeloreError as error:
        tell(error)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone; nothing is left to say.
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
