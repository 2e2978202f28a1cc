"""The page that `footfall report SITE` prints for a person, from the object that `--json` prints for a program.

`SECTIONS`, at the end, are its parts in reading order: each takes the report and the page's width in columns, and gives
what rich is to print. What a visitor may have typed goes through `clean` into `Text`, which rich never reads as markup.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from math import ceil
from typing import Any

from rich import box
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

Report = dict[str, Any]
Row = dict[str, Any]

PLAIN_WIDTH = 100  # columns, where there is no terminal to ask
PAIRED_WIDTH = 100  # from so many columns on, breakdowns stand side by side
SHOWN_DAYS = 31
SHOWN_VALUES = 10
LISTED_VALUES = 1_000  # a report lists no more values of a dimension

CHART_ROWS = 6
EIGHTHS = " ▁▂▃▄▅▆▇█"  # of a character, filled from below
DASHES = "⣀⠤⠒⠉"  # a line at four heights of a character, from below
BAR_COLOUR, LINE_COLOUR = "blue", "yellow"


def duration(seconds: float) -> str:
    """Seconds as people say them: 59s, 1m 23s, 2h 05m."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60:,}h {minutes % 60:02}m"
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


METRICS: dict[str, tuple[str, Callable[[Any], str]]] = {  # title, what prints a value
    "visitors": ("Visitors", "{:,}".format),
    "visits": ("Visits", "{:,}".format),
    "pageviews": ("Pageviews", "{:,}".format),
    "views_per_visit": ("Views\nper visit", "{:,.2f}".format),
    "bounce_rate": ("Bounce\nrate", "{:.1f}%".format),
    "visit_duration": ("Visit\nduration", duration),
}
BREAKDOWNS = (  # title, dimension, the metric beside visitors
    ("Pages", "page", "pageviews"),
    ("Entry pages", "entry_page", "visits"),
    ("Sources", "source", "visits"),
    ("Countries", "country", "visits"),
    ("Browsers", "browser", "visits"),
    ("Devices", "device", "visits"),
)


def print_report(report: Report, console: Console) -> None:
    """Print the page, as wide as the console is."""
    for section in SECTIONS if any(report["totals"].values()) else SECTIONS_WITHOUT_TRAFFIC:
        console.print(section(report, console.width))
        console.print()


def page_console() -> Console:
    """Standard output, as wide as COLUMNS says or the terminal is, and otherwise `PLAIN_WIDTH`."""
    return Console(width=shutil.get_terminal_size((PLAIN_WIDTH, 0)).columns)


def heading(report: Report, width: int) -> RenderableType:
    """The site and its dates."""
    dates = dict.fromkeys(day_name(report[end]) for end in ("from", "to") if report[end])
    return Rule(Text.assemble((clean(report["site"]), "bold"), "  ", " – ".join(dates)), align="left", style="dim")


def without_traffic(report: Report, width: int) -> RenderableType:
    """What to do when there is nothing to show."""
    return Text(
        "No visits on these dates yet.\n\nTo see some, import a log with\n"
        "footfall import access-log FILE --site SITE, and then run footfall materialize."
    )


def totals(report: Report, width: int) -> RenderableType:
    """Every metric over all the dates, under its name."""
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    for title, _ in METRICS.values():
        table.add_column(title.replace("\n", " "))
    table.add_row(*shown(report["totals"], METRICS), style="bold")
    return table


def chart(report: Report, width: int) -> RenderableType:
    """Pageviews as bars and, across them in the same scale, their 24-hour average as a line."""
    hours = report["hours"]
    size = span_hours(len(hours), width)
    spans = spans_of(hours, size)
    highest = max((max(span.pageviews, span.average or 0) for span in spans), default=0)
    if not highest:
        return Text("No pageviews in these hours.")
    columns = [spans[column * len(spans) // width] for column in range(width)]
    rows = (chart_row(row, columns, highest / CHART_ROWS) for row in reversed(range(CHART_ROWS)))
    return Group(chart_title(size, width), peak_label(spans, width), *rows, chart_axis(hours, width))


@dataclass(frozen=True)
class Span:
    """Consecutive hours, drawn as one: when they begin, and sums over them (null averages left out; None: all null)."""

    start: str
    pageviews: int
    average: float | None


def span_hours(hours: int, columns: int) -> int:
    """How many hours to draw as one so that all fit: a part of a day or whole days, so that days look alike."""
    fewest = ceil(hours / columns)
    return next((part for part in (1, 2, 3, 4, 6, 8, 12) if part >= fewest), ceil(fewest / 24) * 24)


def spans_of(hours: Sequence[Row], size: int) -> list[Span]:
    """The hours summed by `size`, counted from the end, so that the last span is always a full one."""
    ends = range((len(hours) - 1) % size + 1, len(hours) + 1, size)
    return [span_of(hours[max(end - size, 0) : end]) for end in ends]


def span_of(hours: Sequence[Row]) -> Span:
    """These hours, which are at least one, as one."""
    averages = [hour["pageviews_24h_average"] for hour in hours if hour["pageviews_24h_average"] is not None]
    return Span(hours[0]["hour"], sum(hour["pageviews"] for hour in hours), sum(averages) if averages else None)


def chart_title(size: int, width: int) -> Text:
    """What a column stands for, and the legend."""
    per = "hour" if size == 1 else f"{size} hours" if size < 24 else "day" if size == 24 else f"{size // 24} days"
    legend = Text.assemble(("█", BAR_COLOUR), " pageviews   ", (DASHES[2] * 2, LINE_COLOUR), " 24-hour average")
    return between(Text(f"Pageviews per {per}", style="bold"), " ", legend, width)


def peak_label(spans: Sequence[Span], width: int) -> Text:
    """The highest span's pageviews and time, with an arrow over the middle of its bar."""
    peak = max(range(len(spans)), key=lambda at: spans[at].pageviews)
    label = f"peak {spans[peak].pageviews:,}, {hour_name(spans[peak].start)}"
    column = (2 * peak + 1) * width // (2 * len(spans))
    fits = column + 2 + len(label) <= width
    return Text(" " * column + f"▾ {label}" if fits else f"{label} ▾".rjust(column + 1), no_wrap=True)


def chart_row(row: int, columns: Iterable[Span], unit: float) -> Text:
    """One line of the chart, numbered from below, each `unit` pageviews high."""
    return Text.assemble(*(chart_cell(row, column, unit) for column in columns), no_wrap=True)


def chart_cell(row: int, span: Span, unit: float) -> tuple[str, str]:
    """A character and its style: a piece of the average's line where it passes through here, otherwise of the bar."""
    bar = EIGHTHS[min(max(ceil((span.pageviews / unit - row) * 8), 0), 8)]
    if span.average is None:
        return bar, BAR_COLOUR
    line_row, height = divmod(min(int(span.average / unit * 4), CHART_ROWS * 4 - 1), 4)
    if line_row != row:
        return bar, BAR_COLOUR
    return DASHES[height], f"{LINE_COLOUR} on {BAR_COLOUR}" if bar == EIGHTHS[8] else LINE_COLOUR


def chart_axis(hours: Sequence[Row], width: int) -> Text:
    """The first and the last hour, below the ends of the chart."""
    first, last = (Text(hour_name(hours[end]["hour"])) for end in (0, -1))
    return between(first, "─", last.append(" UTC"), width)


def days(report: Report, width: int) -> RenderableType:
    """Every metric of each day, or of the last `SHOWN_DAYS` of them."""
    rows = report["days"][-SHOWN_DAYS:]
    title = "Days" if len(rows) == len(report["days"]) else f"Last {SHOWN_DAYS} days"
    return bar_table(title, [f"{date.fromisoformat(row['date']):%a %d %b}" for row in rows], rows, tuple(METRICS))


def breakdowns(report: Report, width: int) -> RenderableType:
    """The first values of each dimension that has any, in pairs where the page is wide enough."""
    listed = report["breakdowns"]
    tables = [ranking(title, listed[by], metric) for title, by, metric in BREAKDOWNS if listed.get(by)]
    abreast = 2 if width >= PAIRED_WIDTH else 1
    grid = Table(box=None, expand=True, show_header=False, pad_edge=False, padding=(0, 1, 1, 1))
    for _ in range(abreast):
        grid.add_column(ratio=1)
    for first in range(0, len(tables), abreast):
        grid.add_row(*tables[first : first + abreast])
    return grid


def ranking(title: str, rows: Sequence[Row], metric: str) -> Table:
    """The first `SHOWN_VALUES` rows of a dimension, and how many more there are."""
    top = rows[:SHOWN_VALUES]
    table = bar_table(title, [clean(row["value"]) for row in top], top, ("visitors", metric))
    table.columns[0].ratio = 4  # to the bars' 1: a long value is cut, the numbers never
    if len(rows) > len(top):
        table.caption = f"and {len(rows) - len(top):,}{'+' if len(rows) >= LISTED_VALUES else ''} more"
    return table


def bar_table(title: str, labels: Iterable[str], rows: Sequence[Row], metrics: Sequence[str]) -> Table:
    """A row of metrics for each label, with a bar for the first metric."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), expand=True)
    table.border_style = table.header_style = table.caption_style = "dim"
    table.caption_justify = "left"
    table.add_column(Text(title, style="bold"), no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1)
    for metric in metrics:
        table.add_column(METRICS[metric][0], justify="right")
    most = max((row[metrics[0]] for row in rows), default=0)
    for label, row in zip(labels, rows, strict=True):
        table.add_row(Text(label), Bar(most, 0, row[metrics[0]], color=BAR_COLOUR), *shown(row, metrics))
    return table


def accounting(report: Report, width: int) -> RenderableType:
    """What became of every line that arrived in these hours."""
    pipeline = report["pipeline"]
    reasons = sorted(pipeline["rejected"].items(), key=lambda reason: -reason[1])
    rejected = sum(pipeline["rejected"].values())
    return Text.assemble(
        ("Accounting\n", "bold"),
        equation(pipeline, "received", {"accepted": pipeline["accepted"], "rejected": rejected}),
        f" ({', '.join(f'{lines:,} {clean(reason)}' for reason, lines in reasons)})" if reasons else "",
        "\n",
        equation(pipeline, "accepted", {part: pipeline[part] for part in ("counted", "bots", "duplicates")}),
    )


def equation(pipeline: Row, whole: str, parts: dict[str, int]) -> Text:
    """`5 received = 3 accepted + 2 rejected`; in red and with ≠ should it ever not hold."""
    holds = pipeline[whole] == sum(parts.values())
    terms = " + ".join(f"{lines:,} {part}" for part, lines in parts.items())
    return Text(f"{pipeline[whole]:,} {whole} {'=' if holds else '≠'} {terms}", style="" if holds else "bold red")


def shown(row: Row, metrics: Iterable[str]) -> list[str]:
    """The row's metrics as people read them; an en dash for null."""
    return ["–" if row[metric] is None else METRICS[metric][1](row[metric]) for metric in metrics]


def clean(text: str) -> str:
    """The text with � for what could act on a terminal: escapes, line ends, invisible and unknown characters.

    The emoji selector U+FE0F goes without a trace: terminals disagree on its width.
    """
    return "".join(character if character.isprintable() else "�" for character in text.replace("\ufe0f", ""))


def between(left: Text, fill: str, right: Text, width: int) -> Text:
    """Two texts at the ends of a line."""
    return Text.assemble(left, (f" {fill * (width - left.cell_len - right.cell_len - 2)} ", "dim"), right)


def day_name(day: str) -> str:
    """`2026-11-22` as Sun 22 Nov 2026."""
    return f"{date.fromisoformat(day):%a %d %b %Y}"


def hour_name(hour: str) -> str:
    """`2026-11-22T13` as Sun 22 Nov 2026 13:00."""
    return f"{datetime.fromisoformat(hour):%a %d %b %Y %H:%M}"


SECTIONS = (heading, totals, chart, days, breakdowns, accounting)
SECTIONS_WITHOUT_TRAFFIC = (heading, without_traffic, accounting)
