select * from {{ source('landing', 'visit_hours') }}
