{# The dates of this run, as a subquery. They are in a table and not in --vars, which would make dbt parse anew each time. #}
{% macro dates_of_run() %}(select date from {{ source('landing', 'run_dates') }}){% endmacro %}


{# The UTC date of an instant. #}
{% macro utc_date(instant) %}({{ instant }} at time zone 'UTC')::date{% endmacro %}


{# Whether an hour lies on one of this run's dates, written so that an index on the hour is used. #}
{% macro hour_of_run(hour) -%}
    {{ hour }} in (
        select date::timestamp at time zone 'UTC' + step * interval '1 hour'
        from {{ source('landing', 'run_dates') }}
        cross join generate_series(0, 23) as step
    )
{%- endmacro %}


{# a / b as a double, null where b is 0. #}
{% macro ratio(numerator, denominator) %}({{ numerator }})::double precision / nullif({{ denominator }}, 0){% endmacro %}
