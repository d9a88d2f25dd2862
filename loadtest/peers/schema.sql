CREATE TABLE keys (hash text PRIMARY KEY, account int NOT NULL);
CREATE TABLE quotas (account int PRIMARY KEY, used bigint NOT NULL, limited bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE log (id bigserial PRIMARY KEY, ts timestamptz NOT NULL DEFAULT now(), account int, key_id text, method text,
  path text, status int, outcome text, bytes_in bigint, bytes_out bigint, duration_us bigint, client_ip inet);
INSERT INTO keys SELECT 'key-' || n, n FROM generate_series(1, 1000) n;
INSERT INTO quotas SELECT n, 0, 1000000000000 FROM generate_series(1, 1000) n;
