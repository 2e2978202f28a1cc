{#
  Takes the place of dbt's `table`: a report table is built for the dates of this run: a partitioned table in `build` with one partition per date, into which the
  model's rows are written once. When the whole run has passed its tests, the same partitions are attached to the table of
  the same name in `reports` (see orchestration/publish.py), so that readers see a date change in all tables at once.
#}
{% materialization table, adapter='postgres' %}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set dates = run_query('select date::text from ' ~ source('landing', 'run_dates') ~ ' order by date').columns[0].values() -%}
    {%- set columns = model['columns'].values() -%}
    {{ get_assert_columns_equivalent(sql) }}
    {{ run_hooks(pre_hooks) }}
    {% call statement('main') %}
        drop table if exists {{ target_relation }} cascade;
        create table {{ target_relation }} {{ get_table_columns_and_constraints() }} partition by list (date);
        {% for date in dates %}
            create table {{ this.schema }}.{{ this.identifier }}_{{ date | replace('-', '') }}
            partition of {{ target_relation }} for values in ('{{ date }}');
        {% endfor %}
        insert into {{ target_relation }} (
            {%- for column in columns %}{{ adapter.quote(column.name) }}{{ ", " if not loop.last }}{% endfor -%}
        )
        select
            {%- for column in columns %} {{ adapter.quote(column.name) }}{{ "," if not loop.last }}{% endfor %}
        from ({{ sql }}) as model;
    {% endcall %}
    {% do persist_docs(target_relation, model) %}
    {{ run_hooks(post_hooks) }}
    {% do adapter.commit() %}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}
