create table orders (
    id bigint generated always as identity primary key,
    customer text not null,
    status text not null default 'placed',
    cents bigint not null
);
-- So that a delete is routed like its row.
alter table orders replica identity full;
