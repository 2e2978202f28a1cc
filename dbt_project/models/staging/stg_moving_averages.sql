select * from {{ source('landing', 'moving_averages') }}
