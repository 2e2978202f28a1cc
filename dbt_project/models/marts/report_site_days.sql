-- A site's metrics on each of its dates.
select
    date,
    site,
    visitors,
    cookieless_visitors,
    visitor_sample,
    visits,
    pageviews,
    events,
    bounces,
    duration_ms,
    {{ ratio('pageviews', 'visits') }} as views_per_visit,
    {{ ratio('100.0 * bounces', 'visits') }} as bounce_rate,
    {{ ratio('duration_ms / 1000.0', 'visits') }} as visit_duration
from {{ ref('stg_site_days') }}
where date in {{ dates_of_run() }}
