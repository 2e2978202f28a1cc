"""The switch: partitions that dbt built and tested in `build` become those of `reports`, in the caller's transaction.

A row is written once: a date's partition is taken from the table in `build` and attached to the one in `reports`, in place of
the date's old partition.
"""

from collections.abc import Sequence

import psycopg
from psycopg import sql

from ingestion.ledger import Outcome, Replacement

TABLES = ("report_site_hours", "report_site_days", "report_breakdown_days", "report_pipeline_hours")


def publish_reports(replacement: Replacement, dates: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """Switches all report tables of some dates, and says in the ledger what they were made from."""
    replacement.publish(outcomes)
    for table in TABLES:
        _create(replacement.connection, table)
        for day in dates:
            _switch(replacement.connection, table, day)


def _create(connection: psycopg.Connection, table: str) -> None:
    """The table in `reports`, with the columns and keys of the one in `build`."""
    connection.execute(
        sql.SQL("create table if not exists {} (like {} including all) partition by list (date)").format(
            sql.Identifier("reports", table), sql.Identifier("build", table)
        )
    )


def _switch(connection: psycopg.Connection, table: str, day: str) -> None:
    partition = f"{table}_{day.replace('-', '')}"
    names = {
        "built": sql.Identifier("build", table),
        "fresh": sql.Identifier("build", partition),
        "report": sql.Identifier("reports", table),
        "old": sql.Identifier("reports", partition),
        "day": sql.Literal(day),
    }
    for statement in (
        # the check spares ATTACH a scan while readers of the report table wait
        "alter table {fresh} add constraint of_date check (date is not null and date = {day})",
        "drop table if exists {old}",
        "alter table {built} detach partition {fresh}",
        "alter table {fresh} set schema reports",
        "alter table {report} attach partition {old} for values in ({day})",
        "alter table {old} drop constraint of_date",
    ):
        connection.execute(sql.SQL(statement).format(**names))
