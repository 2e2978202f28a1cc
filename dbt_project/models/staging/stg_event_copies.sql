select * from {{ source('landing', 'event_copies') }}
