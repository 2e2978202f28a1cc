{{ config(meta={'dagster': {'ref': {'name': 'report_pipeline_hours'}}}) }}
-- Every line is accounted for: received = accepted + rejected, accepted = counted + bots + duplicates.
select date, hour, site
from {{ ref('report_pipeline_hours') }}
where received <> accepted + rejected or accepted <> counted + bots + duplicates
