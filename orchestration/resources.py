"""What assets are given: the stores, and dbt on the same PostgreSQL."""

import os
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version

import dagster as dg
from dagster_dbt import DbtCliResource
from packaging.version import Version

from ingestion.settings import from_environment
from ingestion.stores import Stores, open_stores
from orchestration.environment import dbt_environment
from orchestration.reports import DBT, PROJECT


@dg.resource(description="The ledger and the lake, as FOOTFALL_POSTGRES and FOOTFALL_LAKE say.")
def stores(context: dg.InitResourceContext) -> Iterator[Stores]:
    """Opened when a run begins, closed when it ends."""
    if context.instance and context.run_id:
        hold_connections(context.instance)
    with open_stores(from_environment()) as opened:
        os.environ.update(dbt_environment(opened.postgres_url))
        yield opened


def hold_connections(instance: dg.DagsterInstance) -> None:
    """To Dagster's storage, as the web server does: otherwise each of a run's hundreds of events opens one, which takes 13 ms where
    a password is asked for."""
    instance.optimize_for_webserver(statement_timeout=0, pool_recycle=3600, max_overflow=20)


class _Dbt(DbtCliResource):
    """dbt, its version read from its package: dagster-dbt would ask the executable, which costs a process on every run
    (3 to 6 s of the 12 that a run of dbt takes)."""

    @cached_property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))


dbt = _Dbt(project_dir=PROJECT, dbt_executable=DBT)  # type: ignore[arg-type]
