-- Each visit has one browser, so the breakdown by browser adds up to the day.
select days.date, days.site
from {{ ref('report_site_days') }} as days
left join {{ ref('report_breakdown_days') }} as breakdowns
    on breakdowns.date = days.date and breakdowns.site = days.site and breakdowns.dimension = 'browser'
group by days.date, days.site, days.visits, days.pageviews, days.events, days.bounces, days.duration_ms
having
    (days.visits, days.pageviews, days.events, days.bounces, days.duration_ms)
    is distinct from (
        sum(breakdowns.visits), sum(breakdowns.pageviews), sum(breakdowns.events), sum(breakdowns.bounces),
        sum(breakdowns.duration_ms)
    )
