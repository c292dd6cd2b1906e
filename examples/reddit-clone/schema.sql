create table posts (
  id bigint generated always as identity primary key,
  community text not null,
  title text not null,
  score integer not null default 0
);
create table comments (
  id bigint generated always as identity primary key,
  post bigint not null references posts,
  body text not null
);
create table votes (
  post bigint not null references posts,
  voter text not null,
  up boolean not null,
  primary key (post, voter)
);
