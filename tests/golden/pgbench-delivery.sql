-- What `wasl bench webhooks` is measured beside, to be run by hand: one delivery's row a commit, by
-- 32 clients. Run it in the database of a scratch home only (its rows stay), with fsync on:
--   pgbench -n -M prepared -c 32 -j 2 -T 5 -D n=0 -D run=1 -f tests/golden/pgbench-delivery.sql
-- PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE say where; `run` is another number each time.
\set n :n + 1
INSERT INTO webhook_delivery (provider, delivery_id, body, body_sha256, received_at)
VALUES (
    'pgbench',
    'msg_' || :run::text || '-' || :client_id::text || '-' || :n::text,
    repeat('b', 350)::bytea,
    sha256(repeat('b', 350)::bytea),
    now()
);
