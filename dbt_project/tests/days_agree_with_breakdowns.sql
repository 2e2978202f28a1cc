{{ config(meta={'dagster': {'ref': {'name': 'report_breakdown_days'}}}) }}
-- Each visit has one browser, so the breakdown by browser adds up to the day, and there is neither without the other.
with browsers as (
    select
        date, site, sum(visits) as visits, sum(pageviews) as pageviews, sum(events) as events, sum(bounces) as bounces,
        sum(duration_ms) as duration_ms
    from {{ ref('report_breakdown_days') }}
    where dimension = 'browser'
    group by date, site
)

select date, site
from {{ ref('report_site_days') }} as days
full join browsers using (date, site)
where
    (days.visits, days.pageviews, days.events, days.bounces, days.duration_ms)
    is distinct from
    (browsers.visits, browsers.pageviews, browsers.events, browsers.bounces, browsers.duration_ms)
