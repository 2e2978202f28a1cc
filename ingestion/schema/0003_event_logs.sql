-- Which event logs were read: a home may go from the embedded one to a topic, and to another topic.

create table footfall.event_logs (
    number integer primary key,                     -- 0 is the first: offset_ranges.log_partition is number * 1000 + its partition
    name text not null unique,
    id text not null                                -- one that was made anew has another
);

insert into footfall.event_logs                     -- so far there was only the embedded one
select 0, 'table footfall.event_log', 'embedded' where exists (select from footfall.offset_ranges);
