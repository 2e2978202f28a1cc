-- What became of every line that was received, by arrival hour on the UTC dates of this run.
with rejected as (
    select hour, site, sum(lines)::bigint as rejected, jsonb_object_agg(reason, lines order by reason) as rejected_by_reason
    from {{ ref('stg_rejections') }}
    where {{ hour_of_run('hour') }}
    group by hour, site
),

copies as (
    select
        hour, site, sum(counted)::bigint as counted, sum(bots)::bigint as bots, sum(duplicates)::bigint as duplicates
    from {{ ref('stg_event_copies') }}
    where {{ hour_of_run('hour') }}
    group by hour, site
)

select
    {{ utc_date('arrivals.hour') }} as date,
    arrivals.hour,
    arrivals.site,
    arrivals.received,
    arrivals.accepted,
    coalesce(copies.counted, 0) as counted,
    coalesce(copies.bots, 0) as bots,
    coalesce(copies.duplicates, 0) as duplicates,
    coalesce(rejected.rejected, 0) as rejected,
    coalesce(rejected.rejected_by_reason, '{}'::jsonb) as rejected_by_reason
from {{ ref('stg_arrivals') }} as arrivals
left join copies on copies.hour = arrivals.hour and copies.site = arrivals.site
left join rejected on rejected.hour = arrivals.hour and rejected.site = arrivals.site
where {{ hour_of_run('arrivals.hour') }}
