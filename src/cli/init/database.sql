    ALTER SYSTEM SET wal_level = 'logical';        -- then restart PostgreSQL
    CREATE ROLE walmill LOGIN REPLICATION PASSWORD '…';
    GRANT CREATE ON DATABASE app TO walmill;       -- so that it may make the publication; or make it yourself:
    CREATE PUBLICATION walmill FOR TABLE …;        -- the tables that you want, as their owner
