-- What the collector needs, the embedded event log and event store, and what was read of the event log.

alter table footfall.sites rename added_at to changed_at;
create index on footfall.sites (changed_at);        -- collectors look for changes

create table footfall.event_log (
    log_offset bigint primary key,
    appended_at bigint not null,                    -- ms since 1970, never less than that of the offset before
    lines bytea not null                            -- a micro-batch of NDJSON
);
create index on footfall.event_log (appended_at, log_offset);

create table footfall.event_log_end (               -- one row at most: who appends holds its lock until the commit
    one boolean primary key default true check (one),
    next_offset bigint not null,
    appended_at bigint not null
);

create table footfall.offset_ranges (               -- what was read of each partition of the event log: they tile it
    log_partition integer not null,
    first_offset bigint not null,
    end_offset bigint not null,                     -- excluded
    hour text not null,                             -- the arrival hour
    object text references footfall.raw_objects (name),  -- null: the range held no lines, or was lost
    lost boolean not null default false,            -- retention was faster than the reader
    read_at timestamptz not null default now(),
    primary key (log_partition, first_offset),
    check (first_offset < end_offset)
);
create unique index on footfall.offset_ranges (log_partition, end_offset);
create index on footfall.offset_ranges (hour);

create table footfall.salts (                       -- of cookieless visitors: one a date, deleted when no event of it can come any more
    date date primary key,
    salt bytea not null
);

create schema store;

create table store.hours (                          -- the version that wrote each arrival hour: an older one changes nothing
    hour timestamptz primary key,
    version bigint not null
);

create table store.events (
    site text not null,
    hour timestamptz not null,                      -- of arrival
    visitor_id text not null,
    occurred_at timestamptz not null,
    event_id text not null,
    event text not null,                            -- JSON
    primary key (site, visitor_id, occurred_at, event_id, hour)
);
create index on store.events (hour);

create table store.visitor_hours (                  -- what is known of a visitor from one arrival hour
    site text not null,
    visitor_id text not null,
    hour timestamptz not null,
    first_seen timestamptz not null,
    last_seen timestamptz not null,
    pageviews bigint not null,
    country text not null,
    device text not null,
    browser text not null,
    language text,
    source text not null,
    primary key (site, visitor_id, hour)
);
create index on store.visitor_hours (hour);
