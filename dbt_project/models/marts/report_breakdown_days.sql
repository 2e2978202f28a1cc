-- A site's metrics on each of its dates, by the values of each dimension.
select
    date,
    site,
    dimension,
    value,
    visitors,
    visits,
    pageviews,
    events,
    entries,
    bounces,
    duration_ms,
    {{ ratio('100.0 * bounces', 'entries') }} as bounce_rate,
    {{ ratio('duration_ms / 1000.0', 'entries') }} as visit_duration
from {{ ref('stg_breakdowns') }}
where date in {{ dates_of_run() }}
