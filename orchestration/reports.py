"""dbt as an asset of dates: it builds and tests the report tables of a run's dates in `build`; when all of it passed, one
transaction moves them to `reports`."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, DbtProject, dbt_assets

from assets.lineage import inputs, unsettled
from assets.partitions import DATES, EVERY_DATES_RUN, GRAIN_DATE, SETTINGS
from assets.replace import retried, to_make
from ingestion.ledger import Outcome
from ingestion.stores import Stores
from orchestration.publish import publish_reports

PROJECT_DIRECTORY = Path(__file__).parent.parent / "dbt_project"
DBT = str(Path(sys.executable).parent / "dbt")
CODE_VERSION = "1"


class _Translator(DagsterDbtTranslator):
    """Marts in the group `reports`, staging views apart."""

    def get_group_name(self, dbt_resource_props: Any) -> str:
        return "reports" if "marts" in dbt_resource_props["fqn"] else "staging"

    def get_partition_mapping(self, *_: Any) -> dg.PartitionMapping:
        """Dates read hours, and there are dates before the first hour and after the current one."""
        return dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    def get_asset_spec(self, *of_what: Any) -> dg.AssetSpec:
        """Each staging view after all that dbt reads, so that a backfill launches all of dbt's assets together."""
        spec = super().get_asset_spec(*of_what)
        known = {dep.asset_key.path[-1] for dep in spec.deps}
        after = [
            dg.AssetDep(name, partition_mapping=self.get_partition_mapping())
            for name in ("breakdowns", "moving_averages")
            if spec.group_name == "staging" and name not in known
        ]
        return spec.merge_attributes(deps=after) if after else spec

    def get_owners(self, dbt_resource_props: Any) -> Sequence[str]:
        return ["team:footfall"]

    def get_tags(self, dbt_resource_props: Any) -> dict[str, str]:
        return {**super().get_tags(dbt_resource_props), **GRAIN_DATE}


def dbt_project() -> DbtProject:
    """The dbt project, its manifest made where it is missing or older than its files."""
    project = DbtProject(PROJECT_DIRECTORY, target_path=SETTINGS.home / "dbt", profiles_dir=PROJECT_DIRECTORY)
    newest = max(file.stat().st_mtime for file in PROJECT_DIRECTORY.rglob("*") if file.suffix in (".sql", ".yml"))
    if not project.manifest_path.exists() or project.manifest_path.stat().st_mtime < newest:
        subprocess.run(
            [
                DBT,
                "parse",
                "--quiet",
                "--project-dir",
                PROJECT_DIRECTORY,
                "--profiles-dir",
                PROJECT_DIRECTORY,
                "--target-path",
                SETTINGS.home / "dbt",
                "--log-path",
                SETTINGS.home / "dbt",
            ],
            check=True,
        )
    return project


PROJECT = dbt_project()
RUN_DATES = dg.AssetSpec(
    "run_dates",
    group_name="staging",
    description="The dates of the dbt run that goes on: `reports` writes them before it starts dbt.",
    owners=["team:footfall"],
    kinds={"postgres"},
)


@dbt_assets(
    manifest=PROJECT.manifest_path,
    project=PROJECT,
    partitions_def=DATES,
    backfill_policy=EVERY_DATES_RUN,
    dagster_dbt_translator=_Translator(DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True)),
    exclude="test_type:unit",
    name="reports",
)
def reports(context: dg.AssetExecutionContext, dbt: DbtCliResource, stores: dg.ResourceParam[Stores]) -> Iterator[Any]:
    """Report tables of some dates. dbt runs exclude each other, since all build in one schema."""
    _refuse_a_part(context)
    with retried(context, stores), stores.ledger.excluding("dbt"):
        state, version = stores.ledger.state(), stores.ledger.next_version()
        dates = to_make(context, "reports", state)
        waiting = sorted(unsettled(state, datetime.now(UTC)).intersection(dates))
        dates = sorted(set(dates).difference(waiting))
        context.log.info(f"{len(dates)} dates to build")
        if waiting:
            context.log.warning(
                f"{', '.join(waiting)} would not balance yet: visits of events that arrived on these dates are stale, perhaps on other "
                "dates. The next sweep, or `footfall materialize`, makes all of them"
            )
        if dates:
            stores.ledger.begin_build(dates)
            yield from dbt.cli(["build"], context=context, target_path=PROJECT.target_path).stream()
            made_from = inputs("reports", state, datetime.now(UTC), also=dates)
            outcomes = [Outcome(day, made_from[day], content="", rows=0, bytes=0) for day in dates]
            with stores.ledger.replacing("reports", version, CODE_VERSION) as replacement:
                publish_reports(replacement, dates, outcomes)


def _refuse_a_part(context: dg.AssetExecutionContext) -> None:
    """Report tables switch together, when all of their tests passed: none can be built without the others."""
    if context.selected_asset_keys != reports.keys:
        raise dg.Failure(
            "report tables are built, tested and published together: select all assets of dbt, with their checks"
        )
