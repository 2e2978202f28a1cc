{{ config(meta={'dagster': {'ref': {'name': 'report_site_hours'}}}) }}
-- Bounces are some of the visits, pageviews some of the events, visitors no more than the events; nothing is negative.
select date, site from {{ ref('report_site_hours') }}
where not (visitors between 0 and events and pageviews between 0 and events and bounces between 0 and visits and duration_ms >= 0)
union all
select date, site from {{ ref('report_site_days') }}
where not (visitors between 0 and events and pageviews between 0 and events and bounces between 0 and visits and duration_ms >= 0)
union all
select date, site from {{ ref('report_breakdown_days') }}
where not (visitors between 0 and events and pageviews between 0 and events and bounces between 0 and entries and duration_ms >= 0)
