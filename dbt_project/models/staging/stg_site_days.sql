select * from {{ source('landing', 'site_days') }}
