select * from {{ source('landing', 'breakdowns') }}
