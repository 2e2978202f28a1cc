-- Every hour in which a site had traffic or still has a moving average, on the UTC dates of this run.
with hours as (
    select hour, site from {{ ref('stg_traffic') }} where {{ hour_of_run('hour') }}
    union
    select hour, site from {{ ref('stg_moving_averages') }} where {{ hour_of_run('hour') }}
),

begun as (
    select hour, site, sum(visits)::bigint as visits, sum(bounces)::bigint as bounces, sum(duration_ms)::bigint as duration_ms
    from {{ ref('stg_visit_hours') }}
    where {{ hour_of_run('hour') }}
    group by hour, site
)

select
    {{ utc_date('hours.hour') }} as date,
    hours.hour,
    hours.site,
    coalesce(traffic.visitors, 0) as visitors,
    coalesce(begun.visits, 0) as visits,
    coalesce(traffic.pageviews, 0) as pageviews,
    coalesce(traffic.events, 0) as events,
    coalesce(begun.bounces, 0) as bounces,
    coalesce(begun.duration_ms, 0) as duration_ms,
    averages.pageviews_3h_average,
    averages.pageviews_24h_average,
    averages.pageviews_168h_average,
    averages.events_3h_average,
    averages.events_24h_average,
    averages.events_168h_average,
    averages.visitors_3h_average,
    averages.visitors_24h_average,
    averages.visitors_168h_average
from hours
left join {{ ref('stg_traffic') }} as traffic on traffic.hour = hours.hour and traffic.site = hours.site
left join {{ ref('stg_moving_averages') }} as averages on averages.hour = hours.hour and averages.site = hours.site
left join begun on begun.hour = hours.hour and begun.site = hours.site
