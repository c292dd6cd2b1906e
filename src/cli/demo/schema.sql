CREATE SCHEMA reddit;

CREATE TABLE reddit.posts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subreddit text NOT NULL,
    author text NOT NULL,
    email text NOT NULL,
    title text NOT NULL,
    score integer NOT NULL DEFAULT 0,
    removed boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Deletes then say which subreddit they belong to.
ALTER TABLE reddit.posts REPLICA IDENTITY FULL;

CREATE TABLE reddit.comments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    post_id bigint NOT NULL REFERENCES reddit.posts ON DELETE CASCADE,
    author text NOT NULL,
    body text NOT NULL,
    removed boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE reddit.votes (
    post_id bigint NOT NULL REFERENCES reddit.posts ON DELETE CASCADE,
    author text NOT NULL,
    value smallint NOT NULL CHECK (value IN (-1, 1)),
    PRIMARY KEY (post_id, author)
);
