select * from {{ source('landing', 'traffic') }}
