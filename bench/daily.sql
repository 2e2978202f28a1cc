-- What assets/transforms/sessionize.py and rollup.py make of one date, in DuckDB's SQL. Run step by step, in one connection.

-- step visits
create temp table opened as
with events as (
    select site, visitor_id, cookieless, timestamp, position, event_id, name, path,
        name = 'pageview' as is_pageview, name <> 'engagement' as is_event,
        name = 'pageview' or (name <> 'engagement' and interactive) as is_interactive,
        source, channel, referrer, utm_source, utm_medium, utm_campaign, utm_content, utm_term,
        country, region, city, browser, browser_version, os, os_version, device
    from read_parquet($file)
    where not bot
),
paused as (
    select *, row_number() over visitor as number,
        coalesce(timestamp - lag(timestamp) over visitor > interval 30 minutes, true) as begins
    from events
    window visitor as (partition by site, visitor_id order by timestamp, position, event_id)
),
runs as (
    select *, sum(begins::int) over (partition by site, visitor_id order by number rows unbounded preceding) as run
    from paused
),
so_far as (
    select *, sum(is_event::int) over (partition by site, visitor_id, run order by number rows unbounded preceding) as event_number
    from runs
)
select * from so_far where event_number > 0;

create temp table visits as
with ends as (
    select site, visitor_id, run, min(number) as number, min(timestamp) as began,
        datediff('millisecond', min(timestamp), max(timestamp)) as duration_ms,
        count_if(is_interactive) <= 1 as bounce, count_if(is_pageview) as pageviews, count_if(is_event) as events,
        coalesce(arg_min(path, number) filter (is_pageview), '(none)') as entry_page,
        coalesce(arg_max(path, number) filter (is_pageview), '(none)') as exit_page
    from opened
    group by site, visitor_id, run
)
select ends.site, date '2026-03-10' as date, event_id as visit_id, ends.visitor_id, cookieless, began, duration_ms, bounce,
    pageviews, events, null::varchar as next_visitor_id, 0 as next_pageviews, 0 as next_events, entry_page, exit_page,
    source, channel, referrer, utm_source, utm_medium, utm_campaign, utm_content, utm_term,
    country, region, city, browser, browser_version, os, os_version, device
from ends join opened using (site, visitor_id, run, number);

-- step totals
create temp table site_totals as
select site, count(distinct visitor_id) as visitors, count(distinct visitor_id) filter (cookieless) as cookieless_visitors,
    count(*) as visits, sum(pageviews) as pageviews, sum(events) as events,
    count_if(bounce) as bounces, sum(duration_ms) as duration_ms
from visits
group by site;

-- step breakdowns
create temp table breakdowns as
with by_visit as (
    select site, dimension, value, count(distinct visitor_id) as visitors, count(*) as visits, sum(pageviews) as pageviews,
        sum(events) as events, count(*) as entries, count_if(bounce) as bounces, sum(duration_ms) as duration_ms
    from (
        unpivot (
            select site, visitor_id, pageviews, events, bounce, duration_ms,
                entry_page, exit_page, source, channel, referrer, utm_source, utm_medium, utm_campaign, country, browser, os, device
            from visits
        )
        on entry_page, exit_page, source, channel, referrer, utm_source, utm_medium, utm_campaign, country, browser, os, device
        into name dimension value value
    )
    group by site, dimension, value
),
viewed as (
    select site, path as value, count(distinct visitor_id) as visitors, count(distinct (visitor_id, run)) as visits,
        count(*) as pageviews
    from opened where is_pageview group by site, path
),
custom as (
    select site, path as value, count(*) as events from opened where is_event and not is_pageview group by site, path
),
entered as (
    select site, entry_page as value, count(*) as entries, count_if(bounce) as bounces, sum(duration_ms) as duration_ms
    from visits where entry_page <> '(none)' group by site, entry_page
),
by_page as (
    select site, 'page' as dimension, value, visitors, visits, pageviews, pageviews + coalesce(custom.events, 0) as events,
        coalesce(entries, 0) as entries, coalesce(bounces, 0) as bounces, coalesce(duration_ms, 0) as duration_ms
    from viewed left join custom using (site, value) left join entered using (site, value)
),
by_event as (
    select site, 'event' as dimension, name as value, count(distinct visitor_id) as visitors,
        count(distinct (visitor_id, run)) as visits, count_if(is_pageview) as pageviews, count(*) as events,
        0 as entries, 0 as bounces, 0 as duration_ms
    from opened where is_event group by site, name
)
from by_visit union all from by_page union all from by_event;
