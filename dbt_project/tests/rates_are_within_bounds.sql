-- Bounces are some of the visits, pageviews some of the events, visitors no more than the events.
select date, site from {{ ref('report_site_days') }}
where not (bounces between 0 and visits and pageviews between 0 and events and visitors between 0 and events and duration_ms >= 0)
union all
select date, site from {{ ref('report_breakdown_days') }}
where not (bounces between 0 and entries and pageviews between 0 and events and visitors <= events and duration_ms >= 0)
union all
select date, site from {{ ref('report_site_hours') }}
where not (pageviews between 0 and events and visitors <= events and bounces between 0 and visits)
