"""`python -m bench`: every benchmark, or one of them, as a table each."""

import argparse
import os
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from bench import collector, daily, event_store, events, hour, kafka, materialize, refresh, sweep

Rows = Sequence[tuple[str, str]]

NAMES = ("events", "daily", "materialize", "refresh", "sweep", "collector", "kafka", "event_store", "hour")


def main() -> None:
    options = _options()
    benchmarks: dict[str, tuple[str, Callable[[], Rows]]] = {
        "events": ("raw NDJSON → events Parquet", lambda: events.run(options.raw_events, options.buckets)),
        "daily": ("visits and breakdowns of a date, beside DuckDB", lambda: daily.run(options.events)),
        "materialize": ("24 hours through Dagster and dbt", lambda: materialize.run(options.visitors)),
        "refresh": ("the current hour and date through Dagster and dbt", lambda: refresh.run(options.visitors)),
        "hour": ("an hour from Kafka to reports", lambda: hour.run(options.hour_events)),
        "sweep": ("what is due, in a year that is settled", sweep.run),
        "collector": ("events by HTTP into the event log", lambda: collector.run(options.seconds)),
        "event_store": ("an hour into Cassandra, beside single inserts", event_store.run),
        "kafka": ("Kafka → raw objects, beside librdkafka and Kafka Connect", lambda: kafka.run(options.kafka_events)),
    }
    console = Console(soft_wrap=False)
    console.print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}: figures vary with the machine, ratios less.")
    for name in options.benchmark or NAMES:
        title, run = benchmarks[name]
        _show(console, f"{name}: {title}", run())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("benchmark", nargs="*", help=f"{', '.join(NAMES)} [default: all]", metavar="BENCHMARK")
    parser.add_argument("--raw-events", type=int, default=500_000, help="events: how many raw lines [%(default)s]")
    parser.add_argument("--buckets", type=int, default=1, help="events: into how many buckets [%(default)s]")
    parser.add_argument("--events", type=int, default=2_000_000, help="daily: events of the date [%(default)s]")
    parser.add_argument(
        "--visitors", type=int, default=2_800, help="materialize, refresh: visitors of the sample [%(default)s]"
    )
    parser.add_argument("--seconds", type=float, default=10, help="collector: how long each load lasts [%(default)s]")
    parser.add_argument("--kafka-events", type=int, default=1_000_000, help="kafka: events in the topic [%(default)s]")
    parser.add_argument("--hour-events", type=int, default=4_320_000, help="hour: events of the hour [%(default)s]")
    options = parser.parse_args()
    if unknown := set(options.benchmark).difference(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    return options


def _show(console: Console, title: str, rows: Rows) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
