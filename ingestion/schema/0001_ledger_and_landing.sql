-- The ledger: what was collected, what was made from it, and where it lies. Partition keys are text, as Dagster and the lake
-- write them: 2026-11-22T13 (a UTC hour) and 2026-11-22 (a date).
create schema footfall;
create schema landing;
create schema build;
create schema reports;

create table footfall.sites (
    site text primary key,
    time_zone text not null,
    revision integer not null default 0,            -- grows when settings change that past partitions depend on
    added_at timestamptz not null default now()
);

create table footfall.secrets (
    name text primary key,
    value bytea not null
);

create table footfall.imports (
    content text primary key,                       -- hash of content, site and options: the same import changes nothing
    kind text not null,
    site text,
    lines bigint not null,
    imported_at timestamptz not null default now()
);

create table footfall.raw_objects (
    name text primary key,
    hour text not null,
    lines bigint not null,
    bytes bigint not null,
    digest text not null,
    import text references footfall.imports
);
create index on footfall.raw_objects (hour);

create sequence footfall.versions;                  -- the fencing numbers

create table footfall.published (
    asset text not null,
    partition text not null,
    version bigint not null,
    code_version text not null,
    inputs jsonb not null,                          -- digests of what the partition was made from, by kind
    content text not null,                          -- digest of what it holds; empty where it holds nothing
    rows bigint not null,
    bytes bigint not null,
    published_at timestamptz not null default now(),
    primary key (asset, partition)
);

create table footfall.lake_objects (
    name text primary key,
    asset text not null,
    partition text not null,
    date date,
    bucket integer,
    buckets integer,                                -- of how many
    rows bigint not null,
    bytes bigint not null,
    digest text not null,
    foreign key (asset, partition) references footfall.published deferrable initially deferred
);
create index on footfall.lake_objects (asset, partition);
create index on footfall.lake_objects (asset, date);

create table footfall.touched (                     -- which event hours and site dates an arrival hour has events for
    arrival_hour text not null,
    hour text not null,
    date text not null,
    rows bigint not null,
    primary key (arrival_hour, hour, date)
);

create table footfall.first_hours (                 -- each site's first hour with traffic
    site text primary key,
    hour timestamptz not null
);
create index on footfall.first_hours (hour);

-- Landing: what the assets write, whole partitions at a time, for dbt to read.
create table landing.arrivals (
    hour timestamptz not null,
    site text not null,
    received bigint not null,
    accepted bigint not null,
    primary key (hour, site)
);

create table landing.rejections (
    hour timestamptz not null,
    site text not null,
    reason text not null,
    lines bigint not null,
    primary key (hour, site, reason)
);

create table landing.event_copies (                 -- of the accepted events of a date, by arrival hour
    date date not null,
    hour timestamptz not null,
    site text not null,
    counted bigint not null,
    bots bigint not null,
    duplicates bigint not null,
    primary key (date, hour, site)
);
create index on landing.event_copies (hour);

create table landing.traffic (
    hour timestamptz not null,
    site text not null,
    pageviews bigint not null,
    events bigint not null,
    visitors bigint not null,
    primary key (hour, site)
);
create index on landing.traffic (site, hour);

create table landing.moving_averages (
    hour timestamptz not null,
    site text not null,
    pageviews_3h_average double precision not null,
    pageviews_24h_average double precision not null,
    pageviews_168h_average double precision not null,
    events_3h_average double precision not null,
    events_24h_average double precision not null,
    events_168h_average double precision not null,
    visitors_3h_average double precision not null,
    visitors_24h_average double precision not null,
    visitors_168h_average double precision not null,
    primary key (hour, site)
);

create table landing.visit_hours (                  -- visits by the hour in which they began
    date date not null,
    hour timestamptz not null,
    site text not null,
    visits bigint not null,
    bounces bigint not null,
    duration_ms bigint not null,
    primary key (date, hour, site)
);
create index on landing.visit_hours (hour);

create table landing.site_days (
    date date not null,
    site text not null,
    visitors bigint not null,
    cookieless_visitors bigint not null,
    visitor_sample bigint[] not null,               -- the 4,096 smallest hashes of supplied visitor ids
    visits bigint not null,
    pageviews bigint not null,
    events bigint not null,
    bounces bigint not null,
    duration_ms bigint not null,
    primary key (date, site)
);

create table landing.breakdowns (
    date date not null,
    site text not null,
    dimension text not null,
    value text not null,
    visitors bigint not null,
    visits bigint not null,
    pageviews bigint not null,
    events bigint not null,
    entries bigint not null,                        -- the visits of which bounces and duration are told
    bounces bigint not null,
    duration_ms bigint not null,
    primary key (date, site, dimension, value)
);

create table landing.run_dates (                    -- the dates of the dbt run that goes on
    date date primary key
);
