"""What assets are given: the stores, and dbt on the same PostgreSQL."""

import os
from collections.abc import Iterator

import dagster as dg
from dagster_dbt import DbtCliResource

from assets.partitions import SETTINGS
from ingestion.stores import Stores, open_stores
from orchestration.environment import dbt_environment
from orchestration.reports import DBT, PROJECT


@dg.resource(description="The ledger and the lake, as FOOTFALL_POSTGRES and FOOTFALL_LAKE say.")
def stores(_: dg.InitResourceContext) -> Iterator[Stores]:
    """Opened when a run begins, closed when it ends."""
    with open_stores(SETTINGS) as opened:
        os.environ.update(dbt_environment(opened.postgres_url))
        yield opened


dbt = DbtCliResource(project_dir=PROJECT, dbt_executable=DBT)
