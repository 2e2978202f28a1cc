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
    """The table in `reports`, with the columns of the one in `build`: dates that were published before a column was added
    have null in it, and a column that the contract has no more is dropped."""
    names = {"report": sql.Identifier("reports", table), "built": sql.Identifier("build", table)}
    connection.execute(
        sql.SQL("create table if not exists {report} (like {built} including all) partition by list (date)").format(
            **names
        )
    )
    built, report = (_columns(connection, schema, table) for schema in ("build", "reports"))
    for column in built.keys() - report.keys():
        change = sql.SQL(
            "alter table {report} add column {column} " + built[column]
        )  # a type's name, from the catalogue
        connection.execute(change.format(**names, column=sql.Identifier(column)))
    for column in report.keys() - built.keys():
        connection.execute(
            sql.SQL("alter table {report} drop column {column}").format(**names, column=sql.Identifier(column))
        )


def _columns(connection: psycopg.Connection, schema: str, table: str) -> dict[str, str]:
    """A table's columns and their types."""
    return dict(
        connection.execute(
            """select attname, format_type(atttypid, atttypmod) from pg_attribute
               where attrelid = format('%%I.%%I', %s::text, %s::text)::regclass and attnum > 0 and not attisdropped""",
            [schema, table],
        ).fetchall()
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
