-- What the order service keeps. It only ever adds events; nothing is changed or deleted.
create table order_events (
    id bigint generated always as identity primary key,
    order_id uuid not null,
    kind text not null check (kind in ('placed', 'paid', 'refunded')),
    customer text not null,
    region text not null,
    cents bigint not null check (cents >= 0),
    at timestamptz not null default now()
);
