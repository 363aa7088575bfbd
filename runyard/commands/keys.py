"""API keys from the command line."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from runyard import show
from runyard.client import connect, path_of

app = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
app.add_typer(keys, name="keys")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    *,
    scope: Annotated[
        list[str], typer.Option("--scope", "-s", help="read, logs, trigger, define, work or admin; may be given again.")
    ] = ["read"],  # noqa: B006  # typer copies it
    dag_prefix: Annotated[str | None, typer.Option(help="The key sees only DAGs whose id starts with this.")] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", "-q", help="With the scope work: the queues that its workers may serve."),
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601, such as 2027-01-01T00:00:00Z.")] = None,
    json: AsJson = False,
) -> None:
    """Create a key; it is shown this once."""
    body: dict[str, Any] = {"name": name, "scopes": scope}
    if dag_prefix is not None:
        body["dag_prefix"] = dag_prefix
    if queue:
        body["queues"] = queue
    if expires is not None:
        body["expires_at"] = expires
    answer = connect().send("POST", path_of("keys"), body)
    if json:
        show.as_json(answer)
        return
    show.say(answer["key"])
    show.warn(f"Keep it: it is shown this once. Its id is {answer['key_id']}.")


@keys.command("list")
def list_(*, limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100, json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    items = connect().items(path_of("keys"), limit)
    if json:
        show.as_json(items)
        return
    show.table(
        items,
        [
            ("ID", lambda key: key["key_id"]),
            ("NAME", lambda key: key["name"]),
            ("SCOPES", lambda key: ", ".join(key["scopes"])),
            ("DAGS", lambda key: f"{key['dag_prefix']}…" if key["dag_prefix"] else ""),
            ("QUEUES", lambda key: ", ".join(key["queues"] or ())),
            ("CREATED", lambda key: show.moment(key["created_at"])),
            ("EXPIRES", lambda key: show.moment(key["expires_at"])),
            ("LAST USED", lambda key: show.moment(key["last_used_at"])),
            ("REVOKED", lambda key: show.moment(key["revoked_at"])),
        ],
        "There are no keys.",
    )


@keys.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, not the key.")]) -> None:
    """Revoke a key at once and for good."""
    connect().call("DELETE", path_of("keys", key_id))
    show.say(f"{key_id} is revoked.")
