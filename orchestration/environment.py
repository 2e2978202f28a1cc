"""What Dagster and dbt read from the environment, made from the settings: set before their modules are imported."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from ingestion.stores import Stores

ROOT = Path(__file__).parent.parent


def dagster_environment(stores: Stores) -> Mapping[str, str]:
    """Where Dagster keeps its own storage (a database of its own beside ours, made if it is not there), and dbt's profile."""
    home = stores.settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    return {
        "DAGSTER_HOME": str(home),
        "FOOTFALL_DAGSTER_POSTGRES": _dagster_database(stores.postgres_url),
        "DBT_LOG_PATH": str(stores.settings.home / "dbt"),
        **dbt_environment(stores.postgres_url),
    }


def _dagster_database(postgres_url: str) -> str:
    url = urlsplit(postgres_url)
    name = f"{unquote(url.path.lstrip('/'))}_dagster"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        if not connection.execute("select from pg_database where datname = %s", [name]).rowcount:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            # Dagster commits each of a run's hundreds of events; a crash of the machine may lose the last of them. Reports
            # and the ledger are in the other database.
            connection.execute(sql.SQL("alter database {} set synchronous_commit = off").format(sql.Identifier(name)))
    return urlunsplit(url._replace(path=f"/{name}"))


def dbt_environment(postgres_url: str) -> Mapping[str, str]:
    """The variables that dbt_project/profiles.yml reads."""
    url = urlsplit(postgres_url)
    options = parse_qs(url.query)
    return {
        "FOOTFALL_DBT_HOST": options["host"][0] if "host" in options else (url.hostname or "localhost"),
        "FOOTFALL_DBT_PORT": str(url.port or options.get("port", ["5432"])[0]),
        "FOOTFALL_DBT_USER": unquote(url.username or "") or options.get("user", [""])[0],
        "DBT_ENV_SECRET_FOOTFALL_PASSWORD": unquote(url.password or "") or options.get("password", [""])[0],
        "FOOTFALL_DBT_DATABASE": unquote(url.path.lstrip("/")),
        "FOOTFALL_DBT_SSLMODE": options.get("sslmode", ["prefer"])[0],
        "FOOTFALL_DBT_SSLROOTCERT": options.get("sslrootcert", [""])[0],
    }
